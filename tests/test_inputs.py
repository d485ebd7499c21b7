"""What is to be worked on: files, folders, tables, paired masks, and outputs that never meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.dataset.inputs import Item, gather, pictures
from toolkit.errors import InputError, MaskError, ToolkitError, UnknownNameError, UsageError

KNOWN = ("box", "point", "not_point", "mask", "protect", "prompt", "seed", "invert_mask", "model")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two folders of photos that hold equal names."""
    monkeypatch.chdir(tmp_path)
    for name in ("one.png", "s/a.jpg", "s/a.png", "s/sub/a.png", "s/.hidden.png", "s/notes.txt", "t/s/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def table(name: str, text: str | bytes) -> list[Item]:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return gather([], jobs=Path(name), known=KNOWN, verb="v")


def problems(items: list[Item]) -> list[str]:
    return [str(item.problem) if item.problem else "" for item in items]


def outputs(items: list[Item]) -> list[str]:
    return [Path(str(item.output)).as_posix() for item in items]


def test_words_in_a_table_stay_as_they_are_written(here: Path) -> None:
    Path("s/w.csv").write_text('photo,text\na.png,"no"\n')
    (item,) = gather([], jobs=Path("s/w.csv"), known=("text",), verb="v")
    assert item.options["text"] == "no"


def test_a_file_goes_beside_itself_or_where_it_is_told(here: Path) -> None:
    assert outputs(gather(["one.png"], verb="v")) == ["one-v.png"]
    assert gather(["one.png"])[0].output is None
    assert outputs(gather(["one.png"], output="x.jpg")) == ["x.jpg"]
    assert outputs(gather(["one.png"], output="new/")) == ["new/one.png"]
    assert outputs(gather(["one.png"], output="s")) == ["s/one.png"]
    assert outputs(gather(["one.png"], output="-")) == ["-"]


def test_names_stay_nested_under_the_output_folder(here: Path) -> None:
    items = gather(["s"], output="o")
    assert outputs(items) == ["o/a.jpg", "o/a.png", "o/sub/a.png"]
    assert outputs(gather(["s"], verb="v")) == ["s/a-v.jpg", "s/a-v.png", "s/sub/a-v.png"]
    assert [path.name for path in pictures(Path("s"))] == ["a.jpg", "a.png", "a.png"]


def test_equal_names_of_two_folders_are_kept_apart(here: Path) -> None:
    items = gather(["s", "t/s"], output="o")
    assert outputs(items) == ["o/a.jpg", "o/a.png", "o/sub/a.png", "o/s/a.png"]
    assert len(set(outputs(items))) == 4
    assert not any(item.problem for item in items)


def test_masks_of_photos_that_differ_in_suffix_are_kept_apart_and_paired_again(here: Path) -> None:
    items = gather(["s"], output="o", suffix=".png")
    assert outputs(items) == ["o/a.jpg.png", "o/a.png", "o/sub/a.png"]
    assert outputs(gather(["s/a.png", "s/a.jpg"], verb="mask", suffix=".png")) == ["s/a-mask.png", "s/a-mask.jpg.png"]
    for name in outputs(items):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")
    paired = gather(["s"], output="p", masks="o")
    assert [Path(item.options["mask"]).as_posix() for item in paired] == outputs(items)


def test_masks_are_paired_by_name(here: Path) -> None:
    for name in ("m/sub/a.png", "m/a_mask.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")
    masks = [Path(item.options["mask"]).as_posix() for item in gather(["s"], masks="m")]
    assert masks == ["m/a_mask.png", "m/a_mask.png", "m/sub/a.png"]
    (item,) = gather(["one.png"], masks="m")
    assert isinstance(item.problem, MaskError)
    assert str(item.problem) == "one.png: no mask named one.png (or the like) lies in m"
    (item,) = gather(["-"], masks="m", standard_input=b"x", output="-")
    assert str(item.problem) == "standard input has no name to pair a mask with; give a mask file"
    assert gather(["one.png"], masks="one-mask.png")[0].options == {"mask": "one-mask.png"}


def test_outputs_that_would_meet_are_problems(here: Path) -> None:
    assert problems(gather(["one.png", "./one.png"], verb="v")) == [
        "", "./one.png: would be written to one-v.png, as one.png is",
    ]  # fmt: skip
    clashing = table("j.csv", "photo,output\none.png,x.png\ns/a.png,x.png\n")
    assert problems(clashing) == ["", "s/a.png (j.csv line 3): would be written to x.png, as one.png (j.csv line 2) is"]
    over = table("j.csv", "photo,output\none.png,s/a.png\ns/a.png,y.png\n")
    assert problems(over)[0] == (
        "one.png (j.csv line 2): would be written over s/a.png (j.csv line 3), which is to be worked on too"
    )
    assert problems(gather(["one.png"], output="one.png")) == [""], "in place: the writer asks for --overwrite"


@pytest.mark.parametrize(
    ("paths", "options", "kind", "sentence"),
    [
        ([], {}, UsageError, "no photo is named: give files, a folder, - or --jobs"),
        (["on.png"], {}, InputError, "on.png: there is no such file; did you mean one.png?"),
        (["y" * 5000], {}, InputError, "y" * 5000 + ": there is no such file"),
        (["nowhere/one.png"], {}, InputError, "nowhere/one.png: there is no such file"),
        (["empty"], {}, InputError, "empty: holds no photo (.bmp .jfif .jpe .jpeg .jpg .mpo .png .tif .tiff .webp)"),
        (["s"], {"output": "one.png"}, UsageError,
         "one.png: is a file, and several photos are to be written; name a folder"),
        (["s"], {"output": "-"}, UsageError, "standard output takes one photo"),
        (["one.png"], {"jobs": Path("j.csv")}, UsageError,
         "give photos or --jobs, not both; a table names its own photos"),
    ],
)  # fmt: skip
def test_wrong_calls(here: Path, paths: list[str], options: dict, kind: type[ToolkitError], sentence: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(kind) as caught:
        gather(paths, **options)
    assert str(caught.value) == sentence


def test_several_photos_never_go_to_standard_output(here: Path) -> None:
    with pytest.raises(UsageError, match="standard output takes one photo"):
        gather(["one.png", "s/a.png"], output="-")


def test_loops_of_links_end(here: Path) -> None:
    try:
        Path("s/loop").symlink_to(Path("../s"), target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    assert len(gather(["s"])) == 3


def test_pictures_of_kinds_that_are_not_understood_are_not_passed_over(here: Path) -> None:
    Path("s/b.heic").write_bytes(b"x")
    assert "s/b.heic" in [item.name for item in gather(["s"])]


def test_a_csv_row_carries_options(here: Path) -> None:
    good, several = table(
        "j.csv",
        "\ufeffphoto, mask, prompt, seed, output, box, Protect\n".replace("Protect", "protect")
        + 'one.png,m.png,"two\nlines, and a comma",7,out/x.png,,"1,2,3,4;keep.png"\n'
        + "\n"
        + 's/a.png,,,,,"1,2,3,4; 5x6+7+8",\n',
    )
    assert good.source == Path("one.png")
    assert outputs([good]) == ["out/x.png"]
    assert good.options == {
        "mask": "m.png", "prompt": "two\nlines, and a comma", "seed": 7, "protect": ("1,2,3,4", "keep.png"),
    }  # fmt: skip
    assert several.options == {"box": ("1,2,3,4", "5x6+7+8")}
    assert outputs([several]) == ["s/a-v.png"]


def test_paths_count_from_the_table(here: Path) -> None:
    Path("s/j.jsonl").write_text('{"photo": "a.png", "mask": "m.png", "protect": "k.png", "output": "../o/x.png"}')
    (item,) = gather([], jobs=Path("s/j.jsonl"), known=KNOWN)
    assert (item.source, item.options) == (Path("s/a.png"), {"mask": "s/m.png", "protect": ("s/k.png",)})
    assert item.output == Path("o/x.png")


@pytest.mark.parametrize("absolute", [False, True])
def test_results_of_photos_that_lie_outside_of_the_tables_folder_stay_in_the_output_folder(
    here: Path, absolute: bool
) -> None:
    root = f"{here}/" if absolute else "../"
    Path("tables").mkdir()
    rows = ("s/a.png", "s/../t/s/a.png", "one.png")
    Path("tables/j.csv").write_text("photo\n" + "".join(f"{root}{row}\n" for row in rows))
    items = gather([], jobs=Path("tables/j.csv"), known=KNOWN, output="o")
    assert outputs(items) == ["o/a.png", "o/s/a.png", "o/one.png"]
    assert problems(items) == ["", "", ""]
    Path("masks").mkdir()
    Path("masks/one.png").write_bytes(b"x")
    items = gather([], jobs=Path("tables/j.csv"), known=KNOWN, output="o", masks="masks")
    assert [item.options.get("mask") for item in items] == [None, None, str(Path("masks/one.png"))]


def test_rows_that_leave_a_folder_and_come_back_are_nested_under_the_output_folder(here: Path) -> None:
    Path("s/j.csv").write_text("photo\nsub/../a.jpg\n../s/sub/a.png\n")
    assert outputs(gather([], jobs=Path("s/j.csv"), known=KNOWN, output="o")) == ["o/a.jpg", "o/sub/a.png"]


def test_masks_that_were_held_back_are_no_photos(here: Path) -> None:
    for name in ("s/held/12ab/a-mask.png", "s/held/12ab/jobs.jsonl", "s/held/own.png", "s/held/mine/b.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")
    found = [path.as_posix() for path in pictures(Path("s"))]
    assert found == ["s/a.jpg", "s/a.png", "s/held/mine/b.png", "s/held/own.png", "s/sub/a.png"]


def test_a_folder_as_output_of_a_row_keeps_the_photos_name(here: Path) -> None:
    assert outputs(table("j.csv", "photo,output\none.png,s\n")) == ["s/one.png"]


def test_a_jsonl_row_carries_options(here: Path) -> None:
    items = table(
        "j.jsonl",
        '{"photo": "one.png", "box": [1, 2, 3, 4], "points": [[5, 6]], "seed": 3, "prompt": "a\u2028b"}\r\n\r\n'
        '{"photo": "s/a.png", "boxes": [[1, 2, 3, 4], "5,6,7,8"], "invert-mask": true, "output": null}\n',
    )
    assert items[0].options == {"box": (1, 2, 3, 4), "point": ([5, 6],), "seed": 3, "prompt": "a\u2028b"}
    assert items[1].options == {"box": ([1, 2, 3, 4], "5,6,7,8"), "invert_mask": True}


def test_bad_rows_are_named_and_the_others_stay(here: Path) -> None:
    items = table(
        "j.jsonl",
        '{"photo": "one.png"}\n{"photo": 5}\n[1]\n{bad\n{"photo": "none.png"}\n{"photo": "one.png", "output": 5}\n'
        '{"photo": "one.png", "photo": "s/a.png"}\n{"photo": "one.png", "box": "1", "boxes": "2"}\n'
        '{"photo": "a\\u0000.png"}\n{"photo": "one.png", "protect": ["\\ud800"]}\n' + "[" * 100_000 + "\n{}\n5\n",
    )
    assert problems(items) == [
        "",
        "j.jsonl line 2: names no photo",
        "j.jsonl line 3: expected an object, got [1]",
        "j.jsonl line 4: is not JSON: Expecting property name enclosed in double quotes",
        "j.jsonl line 5: none.png: there is no such file",
        "j.jsonl line 6: output must be a path, got 5",
        "j.jsonl line 7: 'photo' is given twice",
        "j.jsonl line 8: 'box' is given twice",
        "j.jsonl line 9: holds a character that no file name or text can have",
        "j.jsonl line 10: holds a character that no file name or text can have",
        "j.jsonl line 11: is nested too deeply",
        "j.jsonl line 12: names no photo",
        "j.jsonl line 13: expected an object, got 5",
    ]
    items = table("j.csv", 'photo,box\none.png,1,1,5,5\n,"1,1,4,4"\nnone.png,\none.png,"1,2,3,4"\n"one.png,5')
    assert problems(items) == [
        "j.csv line 2: has more cells than the header has columns; quote cells with commas",
        "j.csv line 3: names no photo",
        "j.csv line 4: none.png: there is no such file",
        "",
        "j.csv line 6: is not CSV: unexpected end of data",
    ]
    assert problems(table("j.csv", "photo,seed,seed\none.png,1,2\n")) == ["j.csv line 2: 'seed' is given twice"]


@pytest.mark.parametrize(
    ("name", "text", "kind", "sentence"),
    [
        ("j.csv", "photo,bx\none.png,1\n", UnknownNameError, "j.csv line 2: no column 'bx'; did you mean 'box'?"),
        ("j.jsonl", '{"photo": "one.png", "promt": "x"}', UnknownNameError,
         "j.jsonl line 1: no column 'promt'; did you mean 'prompt'?"),
        ("j.csv", "", InputError, "j.csv: holds no row"),
        ("j.csv", "photo,box\n\n\n", InputError, "j.csv: holds no row"),
        ("j.jsonl", "\n \n", InputError, "j.jsonl: holds no row"),
        ("j.csv", b"photo\n\xff\xfe\n", InputError, "j.csv: cannot be read: is not UTF-8 text"),
        ("j.txt", "photo\n", UsageError, "j.txt: a job table ends in .csv or .jsonl"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(
    here: Path, name: str, text: str | bytes, kind: type[ToolkitError], sentence: str
) -> None:
    with pytest.raises(kind) as caught:
        table(name, text)
    assert str(caught.value) == sentence


def test_tables_that_are_no_file(here: Path) -> None:
    for name, sentence in (
        ("none.csv", "none.csv: cannot be read: No such file or directory"),
        ("folder.csv", "folder.csv: cannot be read: is not a regular file"),
    ):
        Path("folder.csv").mkdir(exist_ok=True)
        with pytest.raises(InputError) as caught:
            gather([], jobs=Path(name))
        assert str(caught.value) == sentence


def test_ten_thousand_rows_are_read(here: Path) -> None:
    items = table("j.csv", "photo,box,output\n" + "".join(f'one.png,"1,2,3,4",o/{n}.png\n' for n in range(10_000)))
    assert len(items) == 10_000
    assert not any(item.problem for item in items)


def test_backgrounds_of_a_table_are_colours_as_written_and_files_beside_it(here: Path) -> None:
    Path("tables").mkdir()
    Path("tables/oak.jpg").write_bytes(b"x")
    Path("tables/p.png").write_bytes(b"x")
    Path("tables/j.csv").write_text('photo,background,output\np.png,"#fff,#ddd",a.png\np.png,oak.jpg,b.png\n')
    items = gather([], jobs=Path("tables/j.csv"), known=["background"])
    assert problems(items) == ["", ""]
    assert [Path(item.options["background"]).as_posix() for item in items] == ["#fff,#ddd", "tables/oak.jpg"]


def test_results_that_lie_in_the_folder_of_the_photos_are_not_worked_on_again(tmp_path: Path) -> None:
    for name in ("photos/a.png", "photos/done/a.png", "photos/more/done/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    photos, done = tmp_path / "photos", tmp_path / "photos" / "done"
    items = gather([str(photos)], output=str(done))
    assert [(item.source, item.output) for item in items] == [
        (photos / "a.png", done / "a.png"),
        (photos / "more/done/b.png", done / "more/done/b.png"),
    ]
    assert all(item.problem is None for item in items)
    assert len(gather([str(photos)], output=str(photos))) == 3
