"""Bad input: one clear sentence, exit code 1 or 2, no traceback, no partial output, nothing lost."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest
from commands import BOX, call, files, make_pictures
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from toolkit.photo import output as writing
from toolkit.photo.pngwriter import chunk

MASK = ("--mask", "m.png", "-m", "telea")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INPAINT_CONFIG", str(tmp_path / "none"))
    make_pictures()


def refused(*arguments: str, code: int) -> str:
    """The sentence a call is refused with; nothing on disk changes."""
    before = files()
    answer = call(*arguments)
    assert answer.code == code, answer
    assert answer.out == b""
    assert files() == before
    return answer.sentence


def bomb() -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


CONTENTS = {
    "zero.png": (b"", "zero.png: the file is empty (0 bytes)"),
    "text.jpg": (b"hello", "text.jpg: is not a picture file of a known kind (JPEG, PNG, TIFF, WebP and BMP can be "
                 "edited)"),
    "bomb.png": (bomb(), "bomb.png: has 60000x60000 pixels (3600 megapixels), more than the limit of 500 megapixels; "
                 "raise max_pixels (--max-megapixels) if the file is trusted"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_files_that_are_no_photo(name: str) -> None:
    content, sentence = CONTENTS[name]
    Path(name).write_bytes(content)
    assert refused("remove-object", name, *MASK, "-o", "new/x.png", code=1) == sentence
    assert refused("mask", name, "--mask", "m.png", code=1) == sentence


@pytest.mark.parametrize("name", ["p.png", "p.jpg"])
def test_truncated_photos(name: str) -> None:
    data = Path(name).read_bytes()
    Path(f"cut-{name}").write_bytes(data[: len(data) // 2])
    assert "is truncated" in refused("remove-object", f"cut-{name}", *MASK, code=1)


@pytest.mark.parametrize(
    ("name", "save", "words"),
    [("a.gif", {}, "GIF"), ("a.psd", None, "Photoshop"), ("a.tif", {"compression": "raw"}, "several pages"),
     ("a.webp", {"lossless": True}, "animated")],
)  # fmt: skip
def test_kinds_that_cannot_be_edited_say_what_to_do(name: str, save: dict | None, words: str) -> None:
    if save is None:
        Path(name).write_bytes(b"8BPS" + bytes(60))
    else:
        frames = [Image.new("RGB", (128, 96), (n, 0, 0)) for n in (0, 200)]
        frames[0].save(name, save_all=True, append_images=frames[1:], **save)
    sentence = refused("remove-object", name, *MASK, code=1)
    assert words in sentence
    assert sentence.startswith(f"{name}: ")


REMOVE = ("remove-object", "p.png")
WRONG_USE = [
    ((), "nothing is selected: give --box, --point, --text or --mask"),
    (("--not-point", "5,5"), "nothing is selected: give --box, --point, --text or --mask"),
    (("--box", "1,2,3"), "select.box.0: box '1,2,3': expected left,top,right,bottom (whole pixels, e.g. "
     "120,80,400,300) or WxH+X+Y"),
    (("--box", "50,50,20,20"), "select.box.0: box 50,50,20,20: reversed, left,top must come before right,bottom; did "
     "you mean 20,20,50,50?"),
    (("--box", "20,20,20,40"), "select.box.0: box 20,20,20,40: has no area (0x20 pixels)"),
    (("--box", "500,500,520,520"), "box 500,500,520,520: lies outside the photo, which is 128x96 pixels"),
    (("--point", "5"), "select.point.0: point '5': expected x,y (whole pixels, e.g. 210,160)"),
    (("--point", "500,500"), "point 500,500: lies outside the photo, which is 128x96 pixels"),
    ((*MASK, "--protect", "nope"), "protect 'nope': is neither a box nor a file"),
    ((*MASK, "--protect", "500,500,600,600"),
     "protect 500,500,600,600: lies outside the photo, which is 128x96 pixels"),
    (("--mask", "m.png", "-m", "telae"), "no fill model 'telae'; did you mean 'telea'?"),
    (("--box", BOX, "--segmenter", "clasical"), "no segment model 'clasical'; did you mean 'classical'?"),
    ((*MASK, "--seed", "-1"), "fill.seed: must be at least 0, got -1"),
    ((*MASK, "--num-images", "x"), "--num-images: expected a whole number, got 'x'"),
    ((*MASK, "--num-images", "65"), "fill.num_images: must be at most 64, got 65"),
    ((*MASK, "--prompt", "x" * 5000), "fill.prompt: must have at most 4000 characters, got 5000"),
    ((*MASK, "--guidance", "nan"), "fill.guidance: expected a number, got nan"),
    ((*MASK, "--steps", "5"), "steps: telea does not take it"),
    ((*MASK, "--size", "9000x9000"), "size 9000x9000: the engine takes sides 1-8192"),
    ((*MASK, "--set", "dilate.radius"), "--set dilate.radius: expected stage.field=value, e.g. dilate.radius=3%"),
    ((*MASK, "--set", "dilat.radius=3"), "--set dilat.radius: no stage 'dilat'; did you mean 'dilate'?"),
    ((*MASK, "--set", "dilate.rad=3"), "--set dilate.rad: no parameter 'rad'; did you mean 'radius'?"),
    ((*MASK, "--set", "dilate.radius=1e300"), "dilate.radius: must be between 0 and 1000000 pixels, got 1e+300"),
    ((*MASK, "--set", "dilate.radius=99999999999999999999%"),
     "dilate.radius: must be at most 10000%, got '99999999999999999999%'"),
    ((*MASK, "--set", "select.box=5"), "select.box: expected a list, got 5"),
    ((*MASK, "--max-megapixels", "nan"), "--max-megapixels: expected a number, got nan"),
    ((*MASK, "--max-megapixels", "-1"), "invalid value for '--max-megapixels': -1.0 is not in the range "
     "0.001<=x<=1000000.0; see inpaint remove-object --help"),
    ((*MASK, "--num-images", "2", "-o", "-"), "standard output takes one picture; --num-images needs a file"),
    ((*MASK, "--json", "-o", "-"), "--json and -o - both want standard output; write the picture to a file"),
    ((*MASK, "--bx", "1"), "no such option '--bx'; did you mean '--box', '--srgb', '--text'?"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "sentence"), WRONG_USE, ids=lambda one: " ".join(one)[:40] if one else "")
def test_wrong_use(options: tuple[str, ...], sentence: str) -> None:
    assert refused(*REMOVE, *options, code=2) == sentence


@pytest.mark.parametrize("radius", ["nan", "-1", "10%%", "", "1e999"])
def test_a_mask_is_dilated_by_a_radius_only(radius: str) -> None:
    sentence = refused("mask", "p.png", "--mask", "m.png", "--dilate", radius, code=2)
    assert (
        sentence == f'dilate.radius: expected pixels (12) or a share of the object\'s diagonal ("2%"), got {radius!r}'
    )


def test_backgrounds_with_names_no_system_has() -> None:
    sentence = refused("swap-background", "p.png", "--mask", "m.png", "--background", "x" * 3000, code=2)
    assert sentence.endswith("is neither a colour, two colours, a picture, a folder nor transparent")
    assert len(sentence) < 250


FAILED = [
    (("--mask", "half.png"), "half.png: the mask is 64x48 but the photo is 128x96; --fit-mask resizes the mask"),
    (("--mask", "empty.png"), "empty.png: is empty, nothing in it is white"),
    (("--mask", "full.png"), "the mask covers the whole photo: there is nothing to copy from"),
    (("--mask", "m.png", "--set", "dilate.radius=1e6"),
     "the mask covers the whole photo: there is nothing to copy from"),
    (("--mask", "none.png"), "none.png: there is no such file"),
    ((*MASK, "--protect", "0,0,128,96"), "nothing is left of the selection outside what is protected"),
    ((*MASK, "-o", "p.png"), "p.png: is the photo itself; name another output with -o, or say --overwrite"),
    ((*MASK, "-o", "m.png"), "m.png: already exists; name another output with -o, or say --overwrite"),
    ((*MASK, "-o", "x.xyz"), "x.xyz: cannot write .xyz files; use .jpg, .png, .tif, .webp or .bmp"),
    ((*MASK, "--preview", "-o", "y.xyz"), "y.xyz: cannot write .xyz files; use .jpg, .png, .tif, .webp or .bmp"),
    ((*MASK, "--max-megapixels", "0.001"), "p.png: has 128x96 pixels (0 megapixels), more than the limit of 0.001 "
     "megapixels; raise max_pixels (--max-megapixels) if the file is trusted"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "sentence"), FAILED, ids=lambda one: " ".join(one)[:40])
def test_what_cannot_be_done(options: tuple[str, ...], sentence: str) -> None:
    assert refused(*REMOVE, *options, code=1) == sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("remove-objct", "p.png"), "no verb or recipe 'remove-objct'; did you mean 'remove-object'?"),
        (("run", "nope.yaml", "p.png"), "nope.yaml: cannot be read: No such file or directory"),
        (("run", "remove-objet", "p.png"), "no recipe 'remove-objet'; did you mean 'remove-object'?"),
        (("recipes", "show"), "name a recipe: inpaint recipes show NAME"),
        (("recipes", "show", "x"), "no recipe 'x'; known: add-content, cutout, remove-object, replace-object, "
         "swap-background"),
        (("models", "show", "tela"), "no model 'tela'; did you mean 'telea'?"),
        (("completion", "ksh"), "invalid value for '{bash|zsh|fish}': 'ksh' is not one of 'bash', 'zsh', 'fish'; "
         "see inpaint completion --help"),
        (("mask", "p.png", "--mask", "m.png", "-o", "x.jpg"), "x.jpg: a mask is written as PNG; name it x.png"),
        (("mask", "p.png", "--mask", "m.png", "-o", "x.png", "--overlay", "x.png"),
         "x.png: is named for the mask and for the overlay"),
        (("mask", "p.png", "p.jpg", "--mask", "m.png", "--overlay", "m.png"),
         "m.png: is a file, and several overlays are to be written; name a folder"),
    ],
)  # fmt: skip
def test_names_nobody_knows(arguments: tuple[str, ...], sentence: str) -> None:
    assert refused(*arguments, code=2) == sentence


def test_missing_photos_get_a_suggestion() -> None:
    assert refused("remove-object", "pp.png", *MASK, code=1) == "pp.png: there is no such file; did you mean p.png?"


def test_outputs_are_looked_at_before_the_work() -> None:
    Path("file").write_bytes(b"")
    assert refused(*REMOVE, *MASK, "-o", "file/sub/x.png", code=1).endswith("file: is a file, file/sub/x.png cannot "
                                                                           "lie in it")  # fmt: skip
    Path("p-remove-object-preview.png").write_bytes(b"")
    assert refused(*REMOVE, *MASK, "--preview", code=1) == (
        "p-remove-object-preview.png: already exists; name another output with -o, or say --overwrite"
    )
    assert refused("mask", "p.png", "--mask", "m.png", "--overlay", "p.jpg", code=1) == (
        "p.jpg: already exists; name another output with -o, or say --overwrite"
    )
    Path("x.png").mkdir()
    assert refused(*REMOVE, "p.jpg", *MASK, "-o", "m.png", code=2) == (
        "m.png: is a file, and several photos are to be written; name a folder"
    )


@pytest.mark.skipif(os.name == "nt", reason="permissions of another kind")
def test_folders_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("locked").mkdir(mode=0o500)
    if os.geteuid() == 0:  # permissions do not bind the administrator: say what they would

        def allowed(path: os.PathLike[str] | str, mode: int, **_: object) -> bool:
            return not (mode & os.W_OK and Path(path).name == "locked")

        monkeypatch.setattr(os, "access", allowed)
    assert "no permission" in refused(*REMOVE, *MASK, "-o", "locked/x.png", code=1)


def test_a_full_disk_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "link", full)
    monkeypatch.setattr(writing.os, "replace", full)
    assert refused(*REMOVE, *MASK, code=1) == "p-remove-object.png: the disk is full; nothing was written"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_names_that_are_too_long() -> None:
    long = "y" * 300 + ".png"
    assert refused(*REMOVE, *MASK, "-o", long, code=1) == f"{long}: File name too long"
    assert refused("remove-object", long, *MASK, code=1) == f"{long}: there is no such file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_pipes_are_not_waited_for() -> None:
    os.mkfifo("pipe.png")
    os.mkfifo("pipe.csv")
    assert refused_without_content("remove-object", "pipe.png", *MASK) == "pipe.png: is not a regular file"
    assert refused_without_content("remove-object", "--jobs", "pipe.csv") == (
        "pipe.csv: cannot be read: is not a regular file"
    )


def refused_without_content(*arguments: str) -> str:
    answer = call(*arguments)
    assert answer.code == 1
    return answer.sentence


def test_standard_input_without_a_photo() -> None:
    assert call("remove-object", "-", *MASK, "-o", "x.png").sentence == "standard input: the file is empty (0 bytes)"
    answer = call("remove-object", "-", *MASK, stdin=Path("p.png").read_bytes())
    assert (answer.code, answer.sentence) == (
        2, "the photo came from standard input: name an output with -o (or -o -)",
    )  # fmt: skip


RECIPES = [
    ("", "r.yaml: expected a mapping with name, about, inputs and stages"),
    ("stages: []", "r.yaml.stages: expected a list of stages"),
    ("stages: [fil]", "r.yaml.stages[0]: no stage 'fil'; did you mean 'fill'?"),
    ("stages: [{select: 5}]", "r.yaml.stages[0].select: expected parameters by name, got 5"),
    ("stages: [{fill: {promt: x}}]", "r.yaml.stages[0].fill: needs what 'dilate' or 'erode' or 'fill-holes' or "
     "'segment' or 'select' makes; put it before"),
    ("stages: [select, crop, {fill: {promt: x}}, composite]",
     "r.yaml.stages[2].fill: no parameter 'promt'; did you mean 'prompt'?"),
    ("stages: [select, {dilate: {radius: wide}}]", "r.yaml.stages[1].dilate.radius: expected pixels (12) or a share "
     "of the object's diagonal (\"2%\"), got 'wide'"),
    ("stages: [select, crop, fill, dilate, composite]",
     "r.yaml.stages[4].composite: needs what 'fill' makes; put it before"),
    ("stages: [select, dilate]", "r: has no stage 'composite' or 'backdrop', so it would change nothing"),
    ("name: a\nname: b\nstages: [select]", "r.yaml: line 2: 'name' is written twice"),
    ("nam: a\nstages: [select]", "r.yaml: no field 'nam'; did you mean 'name'?"),
    ("name: A b\nstages: [select]", "r.yaml.name: expected small letters, digits and dashes, got 'A b'"),
    ("inputs: {x: 3}\nstages: [select]", "r.yaml.inputs.x: no stage uses $x"),
    ("inputs: {x y: 3}\nstages: [select]", "r.yaml.inputs: expected small letters, digits and _ in a name, got 'x y'"),
    ("inputs: {output: ''}\nstages: [select, crop, {fill: {prompt: $output}}, composite]",
     "r.inputs.output: every recipe has an option of this name; choose another"),
    ("stages: [select, crop, {fill: {prompt: $y}}, composite]", "r.yaml.stages[2].fill.prompt: no input 'y'"),
    ("stages: [select, crop, {fill: {model: telae}}, composite]", "no fill model 'telae'; did you mean 'telea'?"),
    ("stages: [select, crop, {fill: {num_images: many}}, composite]",
     "r.yaml.stages[2].fill.num_images: expected integer, got 'many'"),
    ("stages: [select, {crop: {size: 0x4}}, fill, composite]",
     "r.yaml.stages[1].crop.size: size '0x4': expected WxH (e.g. 1024x768) or one number"),
    ("stages: [", "r.yaml: line 1 expected the node content, but found '<stream end>'"),
    ("\t- x", "r.yaml: line 1 found character '\\t' that cannot start any token"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), RECIPES, ids=lambda one: one[:30])
def test_recipes_that_are_refused_are_refused_by_check_and_run(text: str, sentence: str) -> None:
    Path("r.yaml").write_text(text)
    assert refused("check", "r.yaml", code=2) == sentence
    assert refused("run", "r.yaml", "p.png", "--mask", "m.png", code=2) == sentence


def test_a_recipe_that_is_no_text() -> None:
    Path("r.yaml").write_bytes(b"\xff\xfe")
    assert refused("check", "r.yaml", code=2) == "r.yaml: cannot be read: is not UTF-8 text"


WORDS = st.sampled_from(
    "stages name about inputs select dilate erode fill fill-holes feather crop composite box point mask protect radius "
    "size model prompt $prompt $x seed num_images 1 -1 0.5 2% 1e400 .nan null true [] {} [1,2,3,4] telea auto default "
    "type text number & *a !!int !!binary | > ? - : , # \" ' \0 \u2028 generous max_windows context".split(" ")
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(WORDS | st.sampled_from(["\n", "  ", ": ", "- ", "[", "]", "{", "}"]), max_size=25).map("".join),
    st.lists(st.sampled_from(
        ["select", "dilate", "erode", "crop", "fill", "feather", "composite", "{fill: {num_images: 2}}", "fill-holes",
         "{dilate: {radius: 50%}}", "{crop: {size: 40x40}}", "{feather: {radius: 999999}}",
         "{select: {box: [1,1,9,9]}}"]),
        max_size=7).map(lambda names: f"stages: [{', '.join(names)}]"),
)  # fmt: skip


def civil(*arguments: str) -> None:
    """Whatever comes, it is a sentence."""
    answer = call(*arguments)
    assert answer.code in (0, 1, 2), answer
    assert "internal error" not in answer.err
    assert "Traceback" not in answer.err
    if answer.code:
        assert answer.err.startswith(("inpaint: ", "Usage: "))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
@example("stages: [select, crop, {fill: {prompt: $\u2028}}]")
@example("!!int")
@example("!!bool x")
def test_whatever_a_recipe_holds_it_is_civil(text: str) -> None:
    Path("r.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    civil("check", "r.yaml")
    civil("run", "r.yaml", "nope.png")


ARGUMENTS = st.lists(
    st.sampled_from(
        ["p.png", "none.png", "-", ".", "", "--box", BOX, "9x9+1+1", "0,0,0,0", "--point", "1,1", "--mask", "m.png",
         "empty.png", "--protect", "--invert-mask", "--fit-mask", "-m", "telea", "auto", "--seed", "7", "random", "nan",
         "inf", "1e99", "--num-images", "2", "-n", "--json", "--set", "dilate.radius=2%", "crop.size=", "=", "a.b=c",
         "--size", "64", "-o", "/nowhere/x.png", "--jobs", "j.csv", "--help", "--", "--max-megapixels", "--guidance",
         "--steps", "--lora", "-x", "--prompt", "ü\udcff", "--preview"]
    ) | st.text(max_size=6).filter(lambda text: "\0" not in text),
    max_size=7,
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["remove-object", "mask", "run", "check", "recipes", "models", "completion"]), ARGUMENTS)
def test_whatever_the_arguments_are_they_get_a_civil_answer(verb: str, arguments: list[str]) -> None:
    civil(verb, *arguments, *(["-n", "-m", "telea"] if verb == "remove-object" else []))
