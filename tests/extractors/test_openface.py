"""OpenFace's tables: of every version's form, with nobody, several people and gaps in them, and hostile ones."""

from __future__ import annotations

import numpy as np
import pytest

from extractors.contract import ExtractorError, Rows, Runtime
from extractors.visual.openface import ALL, INTENSITIES, PRESENCES, OpenFace, parse

OTHERS = ("gaze_0_x", "pose_Rx", "x_0", "p_scale", "p_rx", "p_ry", "p_rz", "p_0")  # three of which end in r and a letter


def table(
    *faces: dict[str, float], names: tuple[str, ...] = ("frame", "face_id", "timestamp", "confidence", "success"), comma: str = ","
) -> list[bytes]:
    """The lines of a file: a face each, whose values are those given, else 0; tracked with success and a confidence of 0.9."""
    columns = (*names, *OTHERS, *INTENSITIES, *PRESENCES)
    lines = [comma.join(columns)]
    for face in faces:
        known = {"success": 1.0, "confidence": 0.9, "p_rx": -3.14, "x_0": 212.4} | face
        lines.append(comma.join(f"{known.get(name, 0):{'.0f' if name in ('frame', 'success') else '.2f'}}" for name in columns))
    return [f"{line}\n".encode() for line in lines]


def rows(*frames: int) -> Rows:
    return Rows(times_s=np.arange(len(frames)) / 25, frame=np.array(frames, np.int64))


def openface(columns: str = "all") -> OpenFace:
    return OpenFace(OpenFace.Params(columns=columns), Runtime())


def measured(*faces: dict[str, float], shown: int = 3) -> np.ndarray:
    """(shown, 36): of the first source frames."""
    return openface().read_table(table(*faces), rows(*range(shown)), 3)[0].values


def of(values: np.ndarray, name: str) -> list[float]:
    return [round(float(value), 2) for value in values[:, ALL.index(name)]]


def test_the_columns_are_those_of_openface() -> None:
    units = ["01", "02", "04", "05", "06", "07", "09", "10", "12", "14", "15", "17", "20", "23", "25", "26", "45"]
    assert [f"AU{unit}_r" for unit in units] == list(INTENSITIES)
    assert PRESENCES[15:] == ("AU26_c", "AU28_c", "AU45_c")
    known = {"all": 36, "intensities": 17, "presences": 18, "paired": 34}
    for columns, dim in known.items():
        extractor = openface(columns)
        track, warnings = extractor.read_table(table({"frame": 1, "AU12_r": 2.5, "AU12_c": 1}), rows(0), 1)
        assert (extractor.dim, len(track.columns), track.values.shape, warnings) == (dim, dim, (1, dim), ())
        got = dict(zip(track.columns, track.values[0].tolist(), strict=True))
        assert got.get("AU12_r", 2.5) == 2.5
        assert got.get("AU12_c", 1) == 1
        assert ("AU28_c" in got) == (columns in ("all", "presences"))
    assert openface("paired").read_table(table(), rows(), 0)[0].columns[17:19] == ("AU01_c", "AU02_c")


def test_image_one_is_the_first_frame_and_a_row_shows_its_source_frame() -> None:
    faces = [{"frame": n, "AU01_r": n / 10} for n in (1, 2, 3, 4)]
    track, _ = openface("intensities").read_table(table(*faces), rows(0, 0, 2, 3, 3), 4)
    assert [round(float(value), 1) for value in track.values[:, 0]] == [0.1, 0.1, 0.3, 0.4, 0.4]
    assert track.valid.all()
    assert track.values.dtype == np.float32
    np.testing.assert_array_equal(track.times_s, np.arange(5) / 25)


@pytest.mark.parametrize("comma", [",", ", ", " ,\t"])
@pytest.mark.parametrize(
    "names", [("frame", "face_id", "timestamp", "confidence", "success"), ("frame", "timestamp", "confidence", "success")]
)
def test_every_versions_form_is_read(comma: str, names: tuple[str, ...]) -> None:
    lines = table({"frame": 1, "AU45_r": 4.99, "AU28_c": 1, "confidence": 0.98}, names=names, comma=comma)
    for form in (lines, [line.replace(b"\n", b"\r\n") for line in lines], [b"\xef\xbb\xbf" + lines[0], lines[1].rstrip()], [*lines, b"\n"]):
        values = openface().read_table(form, rows(0), 1)[0].values
        assert (of(values, "AU45_r"), of(values, "AU28_c"), of(values, "confidence")) == ([4.99], [1.0], [0.98])


def test_columns_are_found_by_name_wherever_they_stand() -> None:
    lines = [b",".join(line.strip().split(b",")[::-1]) for line in table({"frame": 1, "AU45_r": 4.99, "AU01_r": 0.5})]
    values = openface().read_table(lines, rows(0), 1)[0].values
    assert (of(values, "AU45_r"), of(values, "AU01_r")) == ([4.99], [0.5])


def test_where_tracking_failed_nothing_is_measured() -> None:
    """OpenFace writes zeros there, or what its arithmetic made of them, and neither is a face at rest."""
    lines = table({"frame": 1, "AU01_r": 1}, {"frame": 2, "success": 0, "confidence": 0}, {"frame": 3, "AU01_r": 3})
    lines[2] = lines[2].replace(b"0.00", b"-nan(ind)")
    track, warnings = openface().read_table(lines, rows(0, 1, 2), 3)
    assert track.valid.tolist() == [True, False, True]
    assert np.isnan(track.values[1]).all()
    assert warnings == ()


def test_of_several_faces_the_most_confident_tracked_one_counts() -> None:
    values = measured(
        {"frame": 1, "face_id": 0, "confidence": 0.7, "AU01_r": 1},
        {"frame": 1, "face_id": 1, "confidence": 0.95, "AU01_r": 2},
        {"frame": 1, "face_id": 2, "confidence": 0.99, "AU01_r": 3, "success": 0},
        {"frame": 3, "face_id": 1, "confidence": 0.8, "AU01_r": 4},
        {"frame": 3, "face_id": 0, "confidence": 0.8, "AU01_r": 5},
    )
    assert of(values, "AU01_r")[::2] == [2, 4]  # of equals the first
    assert np.isnan(values[1]).all()


def test_lines_may_come_in_any_order() -> None:
    assert of(measured({"frame": 3, "AU01_r": 3}, {"frame": 1, "AU01_r": 1}, {"frame": 2, "AU01_r": 2}), "AU01_r") == [1, 2, 3]


def test_a_table_of_another_length_is_told() -> None:
    faces = [{"frame": 1}, {"frame": 2, "success": 0}]
    track, warnings = openface().read_table(table(*faces), rows(0, 1, 2, 3), 4)
    assert track.valid.tolist() == [True, False, False, False]
    assert warnings == ("the table ends with frame 2, the video has 4 frames: is it of this very file?",)
    assert openface().read_table(table(*faces), rows(0), 1)[1] == (warnings[0].replace("has 4", "has 1"),)
    assert openface().read_table(table(), rows(0), 1)[1][0].startswith("the table ends with frame 0")


HEADER = table()[0]
FACE = table({"frame": 1})[1]
HOSTILE: dict[str, tuple[list[bytes], str]] = {
    "empty": ([], r"line 1 is not OpenFace's: it names no column frame, success, confidence, AU01_r, \.\.\.; give the CSV file"),
    "no header": ([FACE], "line 1 is not OpenFace's: it names no column frame"),
    "of an image": ([HEADER.replace(b"frame,", b"face,").replace(b"success", b"x")], "it names no column frame, success;"),
    "without units": ([b"frame,face_id,timestamp,confidence,success\n"], r"it names no column AU01_r, AU02_r, AU04_r, AU05_r, \.\.\.;"),
    "one unit less": ([HEADER.replace(b",AU28_c", b"")], "it names no column AU28_c;"),
    "a unit twice": ([HEADER.replace(b"AU28_c", b"AU26_c,AU28_c")], "it names AU26_c twice;"),
    "other letters": ([HEADER.replace(b"AU45_r", b"au45_r")], "it names no column AU45_r"),
    "not text": ([bytes(range(256)) * 8], "line 1 is not OpenFace's"),
    "UTF-16": (["".join(map(bytes.decode, (HEADER, FACE))).encode("utf-16")], "line 1 is not OpenFace's"),
    "cut short": ([HEADER, FACE, FACE[:60]], r"line 3 is not OpenFace's: it has \d+ values, the first line names 48; .* and whole"),
    "too long": ([HEADER, FACE[:-1] + b",1\n"], "line 2 is not OpenFace's: it has 49 values"),
    "another table's line": ([HEADER, HEADER], "line 2 is not OpenFace's: frame is 'frame', expected a whole number from 0 to 1e\\+09"),
    "NUL bytes": ([HEADER, FACE, bytes(500)], "line 3 is not OpenFace's: it has 1 values"),
    "frame 0": ([HEADER, *table({"frame": 0})[1:]], "line 2 is not OpenFace's: frame is 0, expected 1 for the first"),
}


def _with(name: str, text: str) -> list[bytes]:
    columns = HEADER.decode().strip().split(",")
    cells = FACE.decode().strip().split(",")
    cells[columns.index(name)] = text
    return [HEADER, FACE, f"{','.join(cells)}\n".encode()]


for _name, _text, _expected in (
    ("frame", "1.5", "a whole number from 0"),
    ("frame", "-1", "a whole number from 0"),
    ("frame", "", "a whole number from 0"),
    ("frame", "1e30", "a whole number from 0"),
    ("frame", "1_0", "a whole number from 0"),
    ("success", "2", "a whole number from 0 to 1;"),
    ("success", "nan", "a whole number from 0 to 1;"),
    ("confidence", "1.01", "a number from 0 to 1;"),
    ("confidence", "-nan(ind)", "a number from 0 to 1;"),
    ("AU01_r", "5.01", "a number from 0 to 5;"),
    ("AU01_r", "-0.5", "a number from 0 to 5;"),
    ("AU45_r", "inf", "a number from 0 to 5;"),
    ("AU45_r", "nan", "a number from 0 to 5;"),
    ("AU45_r", "0x1", "a number from 0 to 5;"),
    ("AU28_c", "0.5", "a whole number from 0 to 1;"),
    ("AU28_c", "yes", "a whole number from 0 to 1;"),
    ("AU28_c", "\uff11", "a whole number from 0 to 1;"),
):
    HOSTILE[f"{_name} {_text}"] = (_with(_name, _text), f"line 3 is not OpenFace's: {_name} is '.*', expected {_expected}")


@pytest.mark.parametrize("case", HOSTILE)
def test_another_file_is_refused_with_the_line(case: str) -> None:
    lines, said = HOSTILE[case]
    with pytest.raises(ExtractorError, match=said):
        openface().read_table(lines, rows(0, 1), 2)


def test_what_an_error_quotes_is_short_and_harmless() -> None:
    with pytest.raises(ExtractorError, match=r"confidence is '1\\x1b\[31m.{0,20}', expected") as raised:
        parse(_with("confidence", "1\x1b[31m" + "x" * 100_000))
    assert len(str(raised.value)) < 250
