"""Wrong input as a user gives it: exit code 2, one clear message, no traceback, and no record written or lost."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness import cli
from harness.records import Store

DEAD = "http://127.0.0.1:9"  # nobody listens: refused at once


def records_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("record.json")}


@pytest.fixture
def run_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
    """The command in this process: (exit code, stdout, stderr). Results and cache lie in tmp_path."""

    def run(*arguments: str, results: Path = tmp_path / "results") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["ftbench", *arguments, "--results", str(results)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            cli.main()
        return exited.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def refused(run_cli: Callable, tmp_path: Path) -> Callable[..., str]:
    """What `ftbench run` says when it refuses `arguments`, given small defaults for all that they leave open."""

    def run(*arguments: str, model: str | None = "mini", data: str | None = "synthetic", **options: Path) -> str:
        defaults = {"--model": model, "--data": data, "--cache": str(tmp_path / "cache")}
        given = [part for name, value in defaults.items() if value for part in (name, value)]
        before = records_below(tmp_path)
        code, out, told = run_cli("run", *arguments, *given, **options)
        assert_refused(code, out, told)
        assert records_below(tmp_path) == before
        return told

    return run


def assert_refused(code: int, out: str, told: str) -> None:
    assert code == 2
    assert told.startswith("Error: ")
    assert told.count("\n") == 1, "one message, on one line"
    assert "Traceback" not in out + told
    assert out == "", "nothing is announced that will not run"


# Names and values


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--strategy", "last_blok"], ["'last_blok'", "did you mean 'last_block'?", "head_only", ".py"]),
        (["--strategy", "head_only,lorra"], ["'lorra'", "did you mean 'lora'?"]),
        (["--strategy", "head_only,"], ["unknown strategy ''"]),
        (["--strategy", "nowhere/mine.py"], ["nowhere/mine.py", "does not exist"]),
        (["--strategy", "full,full"], ["'full'", "twice"]),
        (["--readout", "lst"], ["'lst'", "did you mean 'last'?", "'first', 'last' or 'mean'"]),
        (["--engine", "dpd"], ["engine.name", "'dpd'", "ddp"]),
        (["--precision", "fp16"], ["precision", "'fp16'", "fp32"]),
        (["--seeds", "0;1"], ["'0;1'", "0,1,2"]),
        (["--seeds", "3,3"], ["3", "twice"]),
        (["--epochs", "-1"], ["training.epochs", "-1", "greater than or equal to 0"]),
        (["--nproc", "0"], ["engine.processes", "0", "greater than or equal to 1"]),
        (["--nproc", "9"], ["NPROC=9", "8", "training.batch_size"]),
        (["--nproc", "3", "--set", "training.batch_size=2"], ["NPROC=3", "at most 2"]),
        (["--set", "optimizer.learning_rat=1e-3"], ["'optimizer.learning_rat'", "'optimizer.learning_rate'"]),
        (["--set", "training.epochs"], ["'training.epochs'", "key=value"]),
        (["--set", "optimizer.learning_rate=fast"], ["optimizer.learning_rate", "'fast'", "number"]),
        (["--set", "optimizer.learning_rate=inf"], ["optimizer.learning_rate", "inf", "finite"]),
        (["--set", "pad_to=300"], ["pad_to=300", "mini", "256"]),
        (["--set", "pad_to=0"], ["pad_to", "0", "'longest'"]),
        (["--set", "data.split_seed=99999999999"], ["data.split_seed", "99999999999"]),
        (["--set", "data.size=3"], ["data.size", "3", "greater than or equal to 10"]),
        (["--set", "data.size=20 training.batch_size=15"], ["training.batch_size=15", "14", "drop_last"]),
        (["--strategy", "last_block", "--set", "adapter.rank=4"], ["'last_block'", "adapter.rank", "lora"]),
        (["--config", "nowhere.yaml"], ["'nowhere.yaml'", "can't be read"]),
        (["--weights", "pretrained"], ["WEIGHTS=pretrained", "mini", "WEIGHTS=random", "gpt2"]),
        (["--weights", "pretraned"], ["'pretraned'", "does not exist", "pretrained", ".safetensors"]),
    ],
    ids=" ".join,
)
def test_a_wrong_value_is_named_with_a_remedy(refused: Callable, arguments: list[str], parts: list[str]) -> None:
    told = refused(*arguments)
    for part in parts:
        assert part in told


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"model": "gpt2-mediun"}, ["'gpt2-mediun'", "did you mean 'gpt2-medium'?"]),
        ({"model": "bert"}, ["'bert'", "'gpt2-xl'"]),
        ({"data": "sms-spam"}, ["'sms-spam'", "sms_spam", ".csv"]),
        ({"data": "texts.xlsx"}, ["'texts.xlsx'", ".csv, .tsv, .jsonl"]),
        ({"data": "nowhere.csv"}, ["'nowhere.csv'", "does not exist", "path"]),
    ],
    ids=str,
)
def test_a_wrong_model_or_data_set_is_named(refused: Callable, options: dict, parts: list[str]) -> None:
    told = refused(**options)
    for part in parts:
        assert part in told


@pytest.mark.parametrize("arguments", [["run", "--nope"], ["run", "--nproc", "two"], ["tabel"], ["table", "extra"]])
def test_wrong_usage(run_cli: Callable, arguments: list[str]) -> None:
    code, _, told = run_cli(*arguments)
    assert code == 2
    assert arguments[-1] in told or arguments[-2] in told
    assert "Traceback" not in told


def test_a_strategy_that_trains_what_is_not_there(refused: Callable, tmp_path: Path) -> None:
    path = tmp_path / "high.py"
    path.write_text("from harness.declare import Strategy\nstrategy = Strategy(trainable=('block.11',))\n")
    told = refused("--strategy", str(path))
    assert "'block.11'" in told
    assert "from -4 to 3" in told


def test_a_broken_strategy_file(refused: Callable, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("raise OSError('disc on fire')")
    told = refused("--strategy", f"head_only,{path}")
    assert str(path) in told
    assert "OSError: disc on fire" in told


def test_the_command_in_a_process_of_its_own(ftbench: Callable, tmp_path: Path) -> None:
    done = ftbench("run", "--strategy", "last_blok", "--model", "mini", "--data", "synthetic")
    assert_refused(done.returncode, done.stdout, done.stderr)
    assert "did you mean 'last_block'?" in done.stderr
    assert records_below(tmp_path) == {}


# Data files

FILLER = "".join(f"text {number},{'ab'[number % 2]}\n" for number in range(20))
MANY_EMPTY = "text,label\n" + ",a\n" * 15 + FILLER


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("empty.csv", b"", ["is empty", "'text'", "'label'"]),
        ("header.csv", b"text,label\n", ["is empty"]),
        ("empty.jsonl", b"\n\n", ["is empty"]),
        ("latin.csv", "text,label\nhello,a\ncafé,b\n".encode("latin-1"), ["line 3", "UTF-8"]),
        ("utf16.tsv", "text\tlabel\nhello\ta\n".encode("utf-16"), ["line 1", "UTF-8"]),
        ("one.csv", b"text,label\nhello,a\nthere,a\n", ["one class only", "'a'", "two or more"]),
        ("columns.csv", b"body,kind\nhello,a\n", ["'text'", "'body', 'kind'", "data.text_column"]),
        ("label.tsv", b"text\tkind\nhello\ta\n", ["'label'", "'text', 'kind'", "data.label_column"]),
        ("noheader.csv", b"hello,a\nthere,b\n", ["'text'", "'hello', 'a'", "header"]),
        ("keys.jsonl", b'{"text": "x", "kind": "a"}\n', ["'label'", "'kind'", "data.label_column"]),
        ("blank.csv", b"text,label\nhello,a\n   ,b\nthere,a\n,b\n", ["'text' is empty", "2 line(s)", ": 3, 5;"]),
        ("first.csv", b"text,label\n,a\nthere,b\n", ["'text' is empty", "1 line(s)", ": 2;"]),
        ("nolabel.tsv", b'text\tlabel\n"two\nlines"\ta\nthere\t\nyou\n', ["'label' is empty", ": 4, 5;"]),
        ("afterblank.csv", b"text,label\n\nhello,a\n\n,b\n", ["'text' is empty", ": 5;"]),
        ("many.csv", MANY_EMPTY.encode(), ["15 line(s)", ": 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...;"]),
        ("null.jsonl", b'{"text": "x", "label": "a"}\n\n{"text": "y", "label": null}\n', ["'label' is empty", ": 3;"]),
        ("broken.jsonl", b'{"text": "x", "label": "a"}\n{"text": "y", \n', ["line 2", "not JSON"]),
        ("list.jsonl", b'{"text": "x", "label": "a"}\n["y", "b"]\n', ["line 2", "object"]),
        ("quote.csv", b'text,label\nhello,a\n"there,b\nyou,a\n', ["line 3", "quotes"]),
        ("comma.csv", b"text,label\nhello,a\nhello, you,b\n", ["line 3", "3 columns", "quotes"]),
        ("few.csv", b"text,label\nhello,a\nthere,b\n", ["2 texts are too few", "10 or more"]),
        ("small.csv", ("text,label\n" + FILLER[:90]).encode(), ["training.batch_size=8", "training texts"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unusable_data_file(refused: Callable, tmp_path: Path, name: str, content: bytes, parts: list[str]) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    told = refused(data=str(path))
    for part in parts:
        assert part in told


@pytest.mark.parametrize("name", ["data.csv", "data.txt"])
def test_a_folder_is_no_data_file(refused: Callable, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert name in refused(data=str(tmp_path / name))


def test_a_text_beyond_the_context_is_cut_counted_and_told(run_cli: Callable, tmp_path: Path) -> None:
    rows = [f"text {number},{'ab'[number % 2]}" for number in range(28)]
    rows += [f"{'word ' * 400},a", f"{'other ' * 400},b"]
    path = tmp_path / "long.csv"
    path.write_text("\n".join(["text,label", *rows]))
    code, out, told = run_cli("run", "--model", "mini", "--data", str(path), "--strategy", "head_only", "--epochs", "1")
    assert (code, told) == (0, "")
    assert "2 texts were longer than a row may be, and were cut." in out
    (record,) = Store(tmp_path / "results").all()
    assert (record.status, record.data.cut_texts) == ("ok", 2)


# Checkpoints


def mini_checkpoint() -> dict[str, torch.Tensor]:
    """The published layout in the mini model's sizes."""
    matrices = {"attn.c_attn": (128, 384), "attn.c_proj": (128, 128), "mlp.c_fc": (128, 512), "mlp.c_proj": (512, 128)}
    tensors = {"wte.weight": torch.randn(640, 128) * 0.02, "wpe.weight": torch.randn(256, 128) * 0.02}
    for norm in ("ln_f", *(f"h.{block}.ln_{number}" for block in range(4) for number in (1, 2))):
        tensors |= {f"{norm}.weight": torch.ones(128), f"{norm}.bias": torch.zeros(128)}
    for block in range(4):
        for name, shape in matrices.items():
            tensors[f"h.{block}.{name}.weight"] = torch.randn(shape) * 0.02
            tensors[f"h.{block}.{name}.bias"] = torch.zeros(shape[1])
    return tensors


def test_a_checkpoint_that_fits_runs(run_cli: Callable, tmp_path: Path) -> None:
    save_file(mini_checkpoint(), tmp_path / "model.safetensors")
    options = ["--data", "synthetic", "--set", "data.size=50", "--strategy", "head_only", "--epochs", "0"]
    code, _, told = run_cli("run", "--model", "mini", "--weights", str(tmp_path), *options)
    assert (code, told) == (0, "")
    (record,) = Store(tmp_path / "results").all()
    assert len(record.model.weights_sha256) == 64


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda tensors: tensors.pop("h.3.mlp.c_fc.weight"), ["lacks 'h.3.mlp.c_fc.weight'", "MODEL"]),
        (lambda tensors: tensors.pop("wpe.weight"), ["lacks 'wpe.weight'", "MODEL"]),
        (
            lambda tensors: tensors.update({"wte.weight": torch.zeros(641, 128)}),
            ["'wte.weight'", "[641, 128]", "[640, 128]", "MODEL"],
        ),
        (
            lambda tensors: tensors.update({"h.0.attn.c_attn.weight": torch.zeros(384, 128)}),
            ["'h.0.attn.c_attn.weight'", "[384, 128]", "[128, 384]"],
        ),
        (
            lambda tensors: tensors.update({"ln_f.bias": torch.zeros(128, dtype=torch.int8)}),
            ["'ln_f.bias'", "I8", "F32"],
        ),
        (lambda tensors: tensors.update({"h.4.ln_1.bias": torch.zeros(128)}), ["unknown tensor 'h.4.ln_1.bias'"]),
    ],
    ids=["no matrix", "no positions", "wrong shape", "transposed", "wrong type", "another block"],
)
def test_a_checkpoint_that_does_not_fit(refused: Callable, tmp_path: Path, change: Callable, parts: list[str]) -> None:
    tensors, path = mini_checkpoint(), tmp_path / "own.safetensors"
    change(tensors)
    save_file(tensors, path)
    told = refused("--weights", str(path))
    assert str(path) in told
    for part in parts:
        assert part in told


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_a_truncated_checkpoint(refused: Callable, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file(mini_checkpoint(), path)
    path.write_bytes(path.read_bytes()[:kept])
    told = refused("--weights", str(path))
    assert "truncated" in told
    assert "again" in told


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.sprung),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.safetensors", "model"])
def test_a_pickle_is_refused_and_never_loaded(refused: Callable, tmp_path: Path, name: str) -> None:
    path, sprung = tmp_path / name, tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Trap(sprung)))
    told = refused("--weights", str(path))
    assert str(path) in told
    assert ("is a pickle" if path.suffix in (".bin", ".pt", ".pth") else "is no safetensors file") in told
    assert "only safetensors is read" in told
    assert not sprung.exists()


def test_a_saved_state_under_a_safetensors_name(refused: Callable, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save(mini_checkpoint(), path)
    assert "no safetensors file" in refused("--weights", str(path))


def test_a_folder_without_a_checkpoint(refused: Callable, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"")
    told = refused("--weights", str(tmp_path / "model"))
    assert str(tmp_path / "model") in told
    assert "model.safetensors" in told


# What is published but can't be had


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request goes to a proxy that nobody runs."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, DEAD)
        monkeypatch.setenv(name.lower(), DEAD)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"data": "sms_spam"}, ["DATA=sms_spam", "SMS Spam Collection", "DATA=synthetic", "FTBENCH_ASSETS"]),
        ({"model": "gpt2"}, ["MODEL=gpt2", "vocabulary", "MODEL=mini", "FTBENCH_ASSETS"]),
    ],
    ids=str,
)
def test_what_is_named_but_out_of_reach(refused: Callable, monkeypatch, options: dict, parts: list[str]) -> None:
    monkeypatch.delenv("FTBENCH_ASSETS", raising=False)
    told = refused(**options)
    for part in parts:
        assert part in told


@pytest.mark.usefixtures("no_network")
def test_auto_takes_what_is_embedded_and_says_why(run_cli: Callable, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FTBENCH_ASSETS", raising=False)
    options = ["--set", "data.size=50", "--strategy", "head_only", "--epochs", "0"]
    code, out, told = run_cli("run", *options, "--cache", str(tmp_path / "cache"))
    assert (code, told) == (0, "")
    first_lines = out.partition("[1/1]")[0]
    assert "mini  (auto: GPT-2's vocabulary" in first_lines
    assert "synthetic  (auto: the SMS Spam Collection can't be downloaded" in first_lines
    (record,) = Store(tmp_path / "results").all()
    assert record.choices["data"].startswith("auto: the SMS Spam Collection")
    assert record.choices["model"].startswith("auto: GPT-2's vocabulary")


@pytest.mark.parametrize(
    "environment", [{"HF_ENDPOINT": DEAD}, {"HF_HUB_OFFLINE": "1"}], ids=["unreachable", "offline"]
)
def test_pretrained_weights_out_of_reach_are_told_soon(
    assets: Path, ftbench: Callable, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    if (assets / "models" / "gpt2").exists():
        pytest.skip("the pretrained weights are at hand")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    started = time.monotonic()
    done = ftbench("run", "--model", "gpt2", "--weights", "pretrained", "--data", "synthetic")
    assert time.monotonic() - started < 20
    assert_refused(done.returncode, done.stdout, done.stderr)
    for part in ("WEIGHTS=pretrained", "gpt2", "hub could not be reached", "WEIGHTS=random", "FTBENCH_ASSETS"):
        assert part in done.stderr


@pytest.mark.parametrize("name", ["absent", "a_file"])
def test_assets_that_are_no_folder(refused: Callable, monkeypatch, tmp_path: Path, name: str) -> None:
    (tmp_path / "a_file").write_text("")
    monkeypatch.setenv("FTBENCH_ASSETS", str(tmp_path / name))
    told = refused()
    assert "FTBENCH_ASSETS=" in told
    assert str(tmp_path / name) in told
    assert "unset it" in told


def test_a_damaged_copy_of_a_published_file(refused: Callable, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "sms_spam").mkdir()
    (tmp_path / "sms_spam" / "SMSSpamCollection").write_text("ham\thello\n")
    monkeypatch.setenv("FTBENCH_ASSETS", str(tmp_path))
    told = refused(data="sms_spam")
    assert "sha256" in told
    assert "replace or delete it" in told


# Results


@pytest.mark.parametrize("below", ["results", "results/deeper"])
def test_a_results_folder_that_cannot_be_written(refused: Callable, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    told = refused(results=tmp_path / "file" / below)
    assert str(tmp_path / "file" / below) in told
    assert "RESULTS" in told
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff\xfe"], ids=repr)
@pytest.mark.parametrize("command", ["run", "table"])
def test_a_damaged_record_is_named_and_kept(run_cli: Callable, tmp_path: Path, command: str, content: bytes) -> None:
    damaged = tmp_path / "results" / "runs" / "some-run" / "record.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(content)
    options = ["--model", "mini", "--data", "synthetic", "--epochs", "0"] if command == "run" else []
    code, out, told = run_cli(command, *options)
    assert_refused(code, out, told)
    assert str(damaged) in told
    assert "move the folder away" in told
    assert records_below(tmp_path) == {damaged: content}


def test_a_table_of_nothing(run_cli: Callable, tmp_path: Path) -> None:
    code, out, told = run_cli("table")
    assert_refused(code, out, told)
    assert "make bench" in told
    assert not (tmp_path / "results" / "table.md").exists()
