"""Shared folders in the programs, evaluations in their cards, and the Hub's own client with a server of this test."""

import base64
import contextlib
import csv
import hashlib
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import metadata_load

from genvs.export import main as export
from inference import evaluate, inference
from tests.conftest import ROOT
from tests.programs import exit_code_of as run
from tests.small_model import saved, small_net
from tests.unit.srn_folder import add_sensors, write_split

REPOSITORY, COMMIT = "someone/cars", "0" * 40


def measured(card: Path) -> list[dict]:
    """The results in a model card's front matter, as the Hub's client reads it."""
    return metadata_load(card)["model-index"][0]["results"]


@pytest.fixture(scope="module")
def folder(snapshot, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "cars"
    assert run(export, snapshot, folder) == 0
    return folder


def test_a_folder_draws_what_its_snapshot_draws(snapshot, folder, tmp_path):
    for path in (snapshot, folder):
        options = ["--denoising_steps", 1, "--device", "cpu", "--out_dir", tmp_path / path.name]
        assert run(inference.main, "--ckpt_path", path, "--in_dir", ROOT / "inference" / "input", *options) == 0
    ours, theirs = (sorted((tmp_path / path.name).rglob("0*.png")) for path in (folder, snapshot))
    assert len(ours) == 16 and [a.read_bytes() for a in ours] == [b.read_bytes() for b in theirs]


def test_the_card_has_the_figures_of_an_evaluation(folder, options, snapshot, tmp_path, capsys):
    out, again = tmp_path / "out", tmp_path / "again"
    options = ["--ckpt_path", folder, *options[2:], "--views", "list", "--metrics", "none", "--baselines", "nearest"]
    assert run(evaluate.main, *options, "--out_dir", out) == 0
    assert run(export, folder, again, "--evaluation", out) == 0
    results = json.loads((out / "results.json").read_text())
    (of_card,) = measured(again / "README.md")
    assert {metric["type"]: metric["value"] for metric in of_card["metrics"]} == {
        measure: figures["mean"] for measure, figures in results["summary"].items()
    }
    assert f"{results['baselines']['nearest']['summary']['psnr']['mean']:.4g}" in (again / "README.md").read_text()
    assert str(tmp_path) not in (again / "README.md").read_text(), "paths of this machine"
    capsys.readouterr()
    for evaluation, reason in ((out, "another snapshot"), (tmp_path, "results.json")):
        assert run(export, snapshot, tmp_path / "other", "--evaluation", evaluation) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and reason in error and not (tmp_path / "other").exists()


def test_the_card_of_several_modalities(tmp_path):
    snapshot = saved(tmp_path / "snapshot.pkl", small_net(modalities=("rgb", "depth", "sar")))
    add_sensors(next(write_split(tmp_path / "cars_test", 1, 5).iterdir()), ("depth", "sar"))
    folder, again, out = tmp_path / "sensors", tmp_path / "again", tmp_path / "out"
    assert run(export, snapshot, folder) == 0
    given = ["--inputs", "depth,sar", "--targets", "rgb", "--num_inputs", 1, "--denoising_steps", 1, "--device", "cpu"]
    options = ["--ckpt_path", folder, "--data", tmp_path / "cars", "--out_dir", out]
    assert run(evaluate.main, *options, *given) == 0
    assert run(export, folder, again, "--evaluation", out) == 0
    metrics = {metric["type"]: metric["value"] for metric in measured(again / "README.md")[0]["metrics"]}
    with open(out / "pairs.csv") as file:
        rows = {row["inputs"]: float(row["psnr"]) for row in csv.DictReader(file) if row["drawing"] == "network"}
    assert metrics == {f"psnr, rgb from {name}": psnr for name, psnr in rows.items()} and len(rows) == 2


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as one upload and one download need. It keeps files in memory."""

    files: dict[str, bytes] = {}

    def answer(self, content: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer: dict[str, object] = {"url": f"http://{self.headers['Host']}/{REPOSITORY}"}
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            answer["files"] = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer |= {"commitUrl": f"{answer['url']}/commit/{COMMIT}", "commitOid": COMMIT}
        self.answer(json.dumps(answer).encode())

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            found = [{"type": "file", "path": f, "size": len(self.files[f]), "oid": COMMIT} for f in self.files]
            self.answer(json.dumps(found).encode())
        elif path.startswith(f"/api/models/{REPOSITORY}/revision/"):
            siblings = [{"rfilename": name} for name in self.files]
            self.answer(json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
            content = self.files[path.rpartition("/")[2]]
            self.answer(content, ETag=hashlib.sha1(content).hexdigest(), X_Repo_Commit=COMMIT)
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


PROGRAM = """
import sys, genvs
from tests.small_model import saved, small_net
from genvs.export import main
snapshot, folder, name = sys.argv[1:]
main([snapshot, folder, "--push", name])
ours, theirs = genvs.from_pretrained(name).state_dict(), genvs.load_snapshot(snapshot).state_dict()
assert all(ours[key].equal(tensor) for key, tensor in theirs.items()) and ours.keys() == theirs.keys()
for refused in ("someone/else:", "none/here"):
    try:
        genvs.from_pretrained(refused)
    except ValueError as error:
        print("refused", error)
"""
MODEL = """
import sys
from genvs.hub_model import HubGeNVS
snapshot, folder, name = sys.argv[1:]
net = HubGeNVS.from_pretrained(snapshot)
print(net.push_to_hub(name))
net.save_pretrained(folder)
for other in (name, folder):
    theirs = HubGeNVS.from_pretrained(other, near=0.5)
    assert theirs.config.scene.near == 0.5 and not theirs.training
    assert all(theirs.state_dict()[key].equal(tensor) for key, tensor in net.state_dict().items())
try:
    net.save_pretrained(folder)
except ValueError as error:
    print("refused twice: refused", error)
HubGeNVS.from_pretrained(folder)  # nothing is missing there
"""


@pytest.mark.parametrize("program", [PROGRAM, MODEL], ids=["functions", "model"])
def test_a_push_and_a_download_by_the_hubs_client(program, snapshot, tmp_path, monkeypatch):
    monkeypatch.setattr(Hub, "files", {})
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
    with hub() as endpoint:
        command = [sys.executable, "-c", program, str(snapshot), str(tmp_path / "cars"), REPOSITORY]
        environment |= {"HF_ENDPOINT": endpoint}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"{endpoint}/{REPOSITORY}" in done.stdout and done.stdout.count("refused") == 2
    assert Hub.files.keys() >= {"README.md", "config.json", "model.safetensors"}
    assert f"from_pretrained('{REPOSITORY}')" in Hub.files["README.md"].decode()


@pytest.mark.parametrize(("token", "name", "reason"), [("", "a/b", "hf auth login"), ("hf_x", "a/b/c", "USER/NAME")])
def test_a_push_that_cannot_be_is_refused_before_anything_is_written(
    snapshot, tmp_path, capsys, monkeypatch, token, name, reason
):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    assert run(export, snapshot, tmp_path / "cars", "--push", name) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: --push=") and error.count("\n") == 1 and reason in error
    assert not (tmp_path / "cars").exists()


def test_without_the_hubs_client(snapshot, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert run(export, snapshot, tmp_path / "cars", "--push", "a/b") == 2
    assert "pip install huggingface_hub" in capsys.readouterr().err and not (tmp_path / "cars").exists()
    with pytest.raises(ImportError, match="pip install huggingface_hub"):
        importlib.reload(sys.modules.get("genvs.hub_model") or importlib.import_module("genvs.hub_model"))
