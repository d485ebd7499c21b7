"""Law 10: `import toolkit` and the help load no numpy, cv2, torch or network; proved in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"numpy", "cv2", "PIL", "torch", "httpx", "socket", "ssl", "http.client", "urllib.request"}
COMMAND = "from toolkit.cli import main; sys.argv = ['inpaint', *{arguments!r}]; main()"


def loaded(code: str) -> set[str]:
    """The modules a fresh process has loaded when `code` is done."""
    script = f"""
import json, sys
try:
    {code}
except SystemExit as end:
    assert not end.code, end.code
finally:
    sys.stderr.write("\\n" + json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import toolkit",
        "import toolkit; dir(toolkit)",
        "import toolkit.errors, toolkit.geometry",
        "import toolkit.cli",
        COMMAND.format(arguments=["--help"]),
        COMMAND.format(arguments=["completion", "--help"]),
        COMMAND.format(arguments=["completion", "bash"]),
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert not HEAVY & loaded(code)


def test_the_check_sees_what_is_loaded() -> None:
    assert {"numpy", "cv2"} <= loaded("import toolkit; toolkit.Edit")


def test_help_names_every_verb() -> None:
    done = subprocess.run([sys.executable, "-m", "toolkit", "--help"], capture_output=True, text=True, check=True)
    for verb in ("remove-object", "mask", "run", "recipes", "models", "check", "doctor", "completion"):
        assert verb in done.stdout
