"""Fingerprints change with what they stand for; a sidecar says what made its output."""

import json
import os

from visa.provenance import folder_fingerprint, read_sidecar, write_sidecar


def test_fingerprint_sees_new_changed_and_renamed_files(tmp_path):
    (tmp_path / "a").write_text("1")
    seen = {folder_fingerprint(tmp_path)}
    (tmp_path / "a").write_text("12")
    seen.add(folder_fingerprint(tmp_path))
    (tmp_path / "b").write_text("1")
    seen.add(folder_fingerprint(tmp_path))
    (tmp_path / "b").rename(tmp_path / "c")
    seen.add(folder_fingerprint(tmp_path))
    assert len(seen) == 4
    without_times = folder_fingerprint(tmp_path, times=False)
    os.utime(tmp_path / "a", (1, 1))
    assert folder_fingerprint(tmp_path) not in seen and folder_fingerprint(tmp_path, times=False) == without_times


def test_a_sidecar_says_what_made_its_output(tmp_path):
    output = tmp_path / "x.csv"
    assert read_sidecar(output) is None
    write_sidecar(output, "k", {"seed": 0}, images=3)
    record = read_sidecar(output)
    assert record["key"] == "k" and record["settings"] == {"seed": 0} and record["images"] == 3
    assert record["machine"]["libraries"]["torch"] and record["written"].endswith("Z")
    assert "/" not in json.dumps(record["machine"]["libraries"]), "no path of this machine"
    output.with_name("x.csv.json").write_text("{broken")
    assert read_sidecar(output) is None
