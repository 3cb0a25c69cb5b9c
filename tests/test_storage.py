"""Data and runs on an S3-compatible server on this machine: used as they are, found again, and never half."""

import json
import os
import shutil
from pathlib import Path

import pytest

from visa import storage
from visa.data.source import open_source
from visa.errors import VisaError
from visa.paths import mirror_of, runs_root, visa_root
from visa.provenance import write_text
from visa.storage import RunStore

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")
import fsspec

RUNS = "s3://bucket/runs"


class TestData:
    def test_a_root_on_object_storage_is_a_root(self, bucket, mini_root, monkeypatch):
        bucket.put(f"{mini_root}/", "bucket/mini/VisA/", recursive=True)
        source = open_source("s3://bucket/mini/VisA")
        local = open_source(str(mini_root))
        assert source.address == "s3://bucket/mini/VisA" and source.samples("1cls") == local.samples("1cls")
        assert all(
            (source.root / s.image).read_bytes() == (mini_root / s.image).read_bytes() for s in source.samples("1cls")
        )
        fingerprint = source.fingerprint()
        shutil.rmtree(source.root)
        monkeypatch.setenv("VISA_ROOT", "s3://bucket/mini/VisA/")
        assert open_source().fingerprint() == fingerprint, "another machine's copy has the same times"
        assert visa_root() == source.root

    def test_only_what_changed_is_fetched_again(self, bucket, monkeypatch):
        bucket.pipe({"bucket/d/a.txt": b"one", "bucket/d/sub/b.txt": b"two", "bucket/d/c.txt": b"three"})
        folder = storage.mirrored("s3://bucket/d")
        bucket.pipe("bucket/d/a.txt", b"new")
        bucket.rm("bucket/d/c.txt")
        fetched = []
        download = storage._Folder.download
        monkeypatch.setattr(
            storage._Folder, "download", lambda s, name, *a: (fetched.append(name), download(s, name, *a))
        )
        os.truncate(folder / "sub/b.txt", 1)
        assert storage.mirrored("s3://bucket/d") == folder and sorted(fetched) == ["a.txt", "sub/b.txt"]
        assert {f.name: f.read_bytes() for f in folder.rglob("*.txt")} == {"a.txt": b"new", "b.txt": b"two"}

    def test_what_arrives_damaged_is_refused_and_leaves_nothing(self, bucket, monkeypatch):
        bucket.pipe("bucket/d/a.txt", b"content")
        get = bucket.get_file
        monkeypatch.setattr(bucket, "get_file", lambda name, to: (get(name, to), Path(to).write_bytes(b"cOntent")))
        with pytest.raises(VisaError, match=r"s3://bucket/d/a.txt is damaged"):
            storage.mirrored("s3://bucket/d")
        assert not list(mirror_of("s3://bucket/d").iterdir())

    @pytest.mark.parametrize(
        ("address", "sentence"),
        [
            ("s3://bucket/nothing", "there is nothing at s3://bucket/nothing"),
            ("nfs4://bucket/x", "needs a package|cannot be reached"),
        ],
    )
    def test_an_address_without_data_is_told(self, bucket, address, sentence):
        with pytest.raises(VisaError, match=sentence):
            open_source(address)

    def test_absent_credentials_are_told_in_one_sentence(self, bucket, monkeypatch, tmp_path):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        with pytest.raises(
            VisaError, match=r"s3://bucket/d cannot be reached \(NoCredentials.*: check address"
        ) as told:
            storage.mirrored("s3://bucket/d")
        assert "\n" not in str(told.value)

    def test_only_data_and_runs_may_be_addresses(self, monkeypatch):
        monkeypatch.setenv("VISA_DATA", "s3://bucket/data")
        with pytest.raises(VisaError, match="must be a local folder"):
            open_source("s3://bucket/d")


@pytest.fixture
def stage(bucket, monkeypatch):
    """A stage `s` of a run that was published: its folder of three files, and its stamp."""
    monkeypatch.setenv("VISA_RUNS", RUNS)
    run = runs_root() / "r"
    for name in ("out.csv", "draw0/scores.npz", "checkpoint-1.pt"):
        write_text(run / "s" / name, f"{name} whole")
    write_text(run / "stages/s.json", json.dumps({"key": "k"}))
    RunStore.of(run).publish("s", (run / "s").rglob("*.*"), run / "stages/s.json")
    return run


def forget(run):
    shutil.rmtree(run)


def contents(run):
    return {str(f.relative_to(run)): f.read_text() for f in run.rglob("*") if f.is_file()}


class TestRuns:
    def test_a_stage_comes_back_whole_with_or_without_its_checkpoints(self, stage):
        before = contents(stage)
        forget(stage)
        RunStore.of(stage).fetch("s", without=["*.pt"])
        assert contents(stage) == {name: text for name, text in before.items() if not name.endswith(".pt")}
        RunStore.of(stage).fetch("s")
        assert contents(stage) == before

    @pytest.mark.parametrize("damage", ["truncated", "same size", "absent"])
    def test_a_damaged_file_makes_its_stage_not_run(self, stage, bucket, damage):
        assert RunStore.of(stage).manifests()["s"]["stamp"] == {"key": "k"}
        name = "bucket/runs/r/s/draw0/scores.npz"
        if damage == "absent":
            bucket.rm(name)
        else:
            bucket.pipe(name, b"draw0" if damage == "truncated" else b"draw0/scores.npz WHOLE")
        assert RunStore.of(stage).manifests() == {}
        RunStore.of(stage).publish("s", (stage / "s").rglob("*.*"), stage / "stages/s.json")
        assert bucket.cat(name) == b"draw0/scores.npz whole" and set(RunStore.of(stage).manifests()) == {"s"}

    def test_a_damaged_file_is_not_read(self, stage, bucket, monkeypatch):
        forget(stage)
        bucket.pipe("bucket/runs/r/s/out.csv", b"out.csv WHOLE")
        with pytest.raises(VisaError, match=r"out\.csv is damaged"):
            RunStore.of(stage).fetch("s")
        assert not (stage / "s/out.csv").exists() and not (stage / "stages/s.json").exists()
        assert RunStore.of(stage).manifests() == {}, "the next run makes it anew"

    def test_an_upload_that_broke_off_counts_for_nothing(self, stage, bucket, monkeypatch):
        write_text(stage / "t/out.csv", "t")
        write_text(stage / "stages/t.json", json.dumps({"key": "t"}))
        monkeypatch.setattr(storage._Folder, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            RunStore.of(stage).publish("t", [stage / "t/out.csv"], stage / "stages/t.json")
        assert set(RunStore.of(stage).manifests()) == {"s"}

    def test_a_running_stage_leaves_its_checkpoint_for_another_machine(self, stage, monkeypatch):
        monkeypatch.setattr(storage, "PUBLISH_EVERY", 0.01)
        folder, there = stage / "u", RunStore.of(stage)
        with (
            pytest.raises(KeyboardInterrupt),
            storage.stage_files(stage, "u", ["s"], lambda: folder.glob("*.*"), stage / "stages/u.json"),
        ):
            write_text(folder / "checkpoint-2.pt", "half way")
            while "u" not in there.manifests():
                pass
            raise KeyboardInterrupt
        forget(stage)
        with (
            pytest.raises(KeyboardInterrupt),
            storage.stage_files(stage, "u", ["s"], lambda: folder.glob("*.*"), stage / "stages/u.json"),
        ):
            assert (folder / "checkpoint-2.pt").read_text() == "half way"
            assert (stage / "s/out.csv").is_file() and not (stage / "s/checkpoint-1.pt").exists()
            raise KeyboardInterrupt
        assert there.manifests()["u"]["stamp"] == {}, "it is not taken for finished"
