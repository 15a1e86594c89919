"""The files of a log: what is written is found again, and whatever else is done to them is found out."""

import json
import stat
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtolocalllm.audit.checkpoint import Verifier
from cloudtolocalllm.audit.folder import notes_in
from cloudtolocalllm.audit.verify import Report, logs_below, records, verify
from cloudtolocalllm.audit.writer import LogBusyError, Writer

NOW = 1_800_000_000.0


def line(n: int) -> bytes:
    return json.dumps({"n": n, "text": "x" * (n % 7)}).encode()


def written(folder: Path, number: int, *, segment_bytes: int = 200, every: int = 3) -> Path:
    """A closed log of several segments and checkpoints."""
    writer = Writer(folder, "example.org/api", now=NOW, segment_bytes=segment_bytes)
    for n in range(number):
        writer.append([line(n)])
        if n % every == every - 1:
            writer.checkpoint(NOW + n)
    writer.close(NOW)
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return written(tmp_path / "log", 40)


def segments(log: Path) -> list[Path]:
    return sorted(log.glob("*.jsonl"))


def test_what_is_written_is_there_and_holds(log: Path) -> None:
    report = verify(log)
    assert report.faults == report.notes == []
    assert (report.size, report.covered, report.origin) == (40, 40, "example.org/api")
    assert list(records(log)) == [line(n) for n in range(40)]
    assert len(segments(log)) > 3
    assert logs_below(log) == logs_below(log.parent) == [log]


def test_files_are_the_owners_alone(log: Path) -> None:
    assert stat.S_IMODE(log.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in log.iterdir()} == {0o600}


def test_it_goes_on_over_restarts(log: Path) -> None:
    for n in range(40, 60):
        writer = Writer(log, "of no matter", now=NOW, segment_bytes=200)
        assert not writer.recovered
        assert not writer.damaged
        assert writer.size == n
        writer.append([line(n)])
        writer.close(NOW)
    assert verify(log).faults == []
    assert list(records(log)) == [line(n) for n in range(60)]


def test_an_empty_log_holds(tmp_path: Path) -> None:
    Writer(tmp_path / "log", "a", now=NOW).close(NOW)
    assert verify(tmp_path / "log").good


def test_there_is_one_writer(log: Path) -> None:
    writer = Writer(log, "a", now=NOW)
    with pytest.raises(LogBusyError):
        Writer(log, "a", now=NOW)
    writer.abandon()
    Writer(log, "a", now=NOW).abandon()


# --- after a crash


def test_records_after_the_last_checkpoint_are_kept(log: Path) -> None:
    writer = Writer(log, "a", now=NOW, segment_bytes=200)
    writer.append([line(40), line(41)])
    writer.abandon()
    assert verify(log).notes == ["no checkpoint covers the last 2 records yet"]
    again = Writer(log, "a", now=NOW)
    assert again.recovered
    assert (again.size, again.uncovered) == (42, 2)
    again.close(NOW)
    assert verify(log).covered == 42


def test_a_torn_record_is_cut_off(log: Path) -> None:
    with segments(log)[-1].open("ab") as file:
        file.write(b'{"half":')
    assert verify(log).good
    assert "torn" in verify(log).notes[0]
    again = Writer(log, "a", now=NOW)
    assert again.recovered
    assert again.size == 40
    again.append([line(40)])
    again.close(NOW)
    assert verify(log).faults == verify(log).notes == []
    assert list(records(log))[-1] == line(40)


@pytest.mark.parametrize("full", [True, False])
def test_a_crash_between_two_steps_of_a_new_segment_does_no_harm(tmp_path: Path, full: bool) -> None:
    log = written(tmp_path / "log", 3, segment_bytes=10)
    newest = segments(log)[-1]
    assert newest.read_bytes() == b""
    newest.unlink()  # its edge was written, its file not
    if not full:
        newest.with_suffix(".edge").unlink()
    writer = Writer(log, "a", now=NOW)
    assert not writer.damaged
    writer.append([line(3)])
    writer.close(NOW)
    assert verify(log).faults == []
    assert list(records(log)) == [line(n) for n in range(4)]


# --- damage


def changed_at(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_damaged_log_is_set_aside_and_told(log: Path) -> None:
    changed_at(segments(log)[-1], 3)
    key = (log / "log.vkey").read_text()
    writer = Writer(log, "example.org/api", now=NOW)
    assert writer.damaged == "damaged-1"
    assert writer.size == 0
    assert writer.verifier_key != key.strip()
    assert writer.verifier_key.startswith("example.org/api/1+")
    writer.append([b"{}"])
    writer.close(NOW)
    report = verify(log)
    assert report.size == 1
    assert ["damaged-1" in fault for fault in report.faults] == [True]
    assert not verify(log / "damaged-1").good
    changed_at(log / "checkpoint", 3)
    assert Writer(log, "example.org/api", now=NOW).damaged == "damaged-2"


@pytest.mark.parametrize("name", ["checkpoint", "key.json", "last edge", "last segment"])
def test_a_missing_file_is_damage_at_the_next_start(log: Path, name: str) -> None:
    last = segments(log)[-1]
    {"last edge": last.with_suffix(".edge"), "last segment": last}.get(name, log / name).unlink()
    writer = Writer(log, "a", now=NOW)
    assert writer.damaged
    writer.abandon()


def faults(log: Path) -> list[str]:
    report = verify(log)
    assert len(report.faults) <= 50
    return report.faults


def all_lines(log: Path) -> list[list[bytes]]:
    return [path.read_bytes().splitlines(keepends=True) for path in segments(log)]


def rewrite(log: Path, lines: list[list[bytes]]) -> None:
    for path, content in zip(segments(log), lines, strict=True):
        path.write_bytes(b"".join(content))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_one_change_of_the_records_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    log = written(
        tmp_path_factory.mktemp("audit") / "log", data.draw(st.integers(1, 25)), every=data.draw(st.integers(1, 9))
    )
    lines = all_lines(log)
    before = [list(part) for part in lines]
    flat = [(s, i) for s, part in enumerate(lines) for i in range(len(part))]
    segment, index = data.draw(st.sampled_from(flat))

    def edit() -> None:
        text = bytearray(lines[segment][index])
        text[data.draw(st.integers(0, len(text) - 1))] ^= data.draw(st.integers(1, 255))
        lines[segment][index] = bytes(text)

    def delete() -> None:
        del lines[segment][index]

    def duplicate() -> None:
        lines[segment].insert(index, lines[segment][index])

    def insert() -> None:
        lines[segment].insert(index, b'{"forged":1}\n')

    def swap() -> None:
        other, at = data.draw(st.sampled_from(flat))
        lines[segment][index], lines[other][at] = lines[other][at], lines[segment][index]

    def truncate() -> None:
        whole = b"".join(lines[segment])
        lines[segment] = [whole[: data.draw(st.integers(0, len(whole) - 1))]]
        for later in range(segment + 1, len(lines)):
            lines[later] = []

    changes: list[Callable[[], None]] = [edit, delete, duplicate, insert, swap, truncate]
    data.draw(st.sampled_from(changes))()
    rewrite(log, lines)
    if [b"".join(part) for part in lines] == [b"".join(part) for part in before]:
        return  # it was swapped with itself or an equal
    if b"".join(chain(*lines)).startswith(b"".join(chain(*before))):
        # Something was added at the end: that is what a killed writer leaves too, so it is told, and no fault.
        assert "no checkpoint covers the last" in verify(log).notes[0]
        assert verify(log).covered == sum(len(part) for part in before)
        return
    assert faults(log)


def test_deletion_of_any_segment_is_found(log: Path) -> None:
    for path in segments(log)[:-1]:
        content = path.read_bytes()
        path.unlink()
        assert faults(log)
        path.write_bytes(content)
    assert faults(log) == []
    for path in log.glob("*"):
        if path.suffix in (".jsonl", ".edge", ".checkpoints"):
            path.unlink()
    assert faults(log)


def test_a_fault_says_where(log: Path) -> None:
    lines = all_lines(log)
    assert lines[1][0].startswith(b'{"n"')
    lines[1][0] = lines[1][0].replace(b"x", b"y").replace(b'"n"', b'"m"')
    rewrite(log, lines)
    first = sum(len(part) for part in lines[:1])
    (told, *_) = faults(log)
    low, high = (int(word) for word in told.split()[1:4:2])
    assert low <= first <= high


def test_forged_checkpoints_and_a_changed_history_are_found(log: Path) -> None:
    other = written(log.parent / "other", 40)
    path = sorted(log.glob("*.checkpoints"))[0]
    content = path.read_text()
    path.write_text((other / path.name).read_text())
    assert any("no checkpoint of this log" in fault for fault in faults(log))
    path.write_text(content)
    (log / "checkpoint").write_text((other / "checkpoint").read_text())
    assert any("newest checkpoint" in fault for fault in faults(log))


# --- with something from elsewhere


def rewritten_by_its_owner(log: Path) -> None:
    """What somebody does who has the machine, key and all."""
    secret = (log / "key.json").read_bytes()
    for path in log.iterdir():
        path.unlink()
    (log / "key.json").write_bytes(secret)
    (log / "key.json").chmod(0o600)
    writer = Writer(log, "example.org/api", now=NOW)
    writer.append([line(n) for n in range(39)])
    writer.close(NOW)


def test_a_history_rewritten_with_the_key_is_found_by_a_checkpoint_from_elsewhere(log: Path) -> None:
    kept = (log / "checkpoint").read_text()
    sink = "".join(path.read_text() for path in sorted(log.glob("*.checkpoints")))
    rewritten_by_its_owner(log)
    assert verify(log).good, "nobody can tell from the log alone"
    for given_ in (kept, sink, f"<109>1 2026-01-01T00:00:00Z host app - checkpoint - {sink.splitlines()[-1]}"):
        report = verify(log, given=[given_])
        assert not report.good
        assert report.given >= 1
        assert any("given checkpoint" in fault for fault in report.faults)


def test_a_log_made_anew_is_found_by_the_key_from_elsewhere(log: Path) -> None:
    key = Verifier.parse((log / "log.vkey").read_text())
    assert verify(log, key=key).good
    for path in log.iterdir():
        path.unlink()
    written(log, 5)
    assert verify(log).good
    assert not verify(log, key=key).good


def test_checkpoints_of_other_logs_say_nothing(log: Path, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "edge", "example.org/edge", now=NOW)
    foreign = writer.checkpoint(NOW)
    writer.close(NOW)
    report = verify(log, given=[foreign])
    assert report.good
    assert (report.foreign, report.given) == (1, 0)


def test_given_nonsense_is_a_fault(log: Path) -> None:
    assert verify(log, given=["nonsense"]).faults == ["the given file holds no checkpoint"]
    note = (log / "checkpoint").read_text().replace("\n40\n", "\n41\n")
    assert "signature" in verify(log, given=[note]).faults[0]


def test_what_is_no_log_is_a_fault(tmp_path: Path) -> None:
    report = verify(tmp_path)
    assert isinstance(report, Report)
    assert not report.good
    assert logs_below(tmp_path) == logs_below(tmp_path / "none") == []


def test_notes_are_found_in_what_collectors_write() -> None:
    note = "a\n1\nAAAA\n\n\u2014 a b\n"
    assert notes_in(note) == [note]
    text = json.dumps({"time": 1, "checkpoint": note})
    assert notes_in(f'{{"other": 1}}\nx y {text}\n{text}\nnot json {{"a\n') == [note, note]
    assert notes_in("") == []


def test_the_settings_hash_is_keyed_and_compared(log: Path, tmp_path: Path) -> None:
    writer = Writer(log, "a", now=NOW)
    digest, same = writer.same_configuration(["a=1"])
    assert same
    assert writer.same_configuration(["a=1"]) == (digest, True)
    assert writer.same_configuration(["a=2"])[1] is False
    other = Writer(tmp_path / "other", "a", now=NOW)
    assert other.same_configuration(["a=1"])[0] != digest
    writer.close(NOW)
    other.close(NOW)
    assert verify(log).good
