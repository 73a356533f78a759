import json
import math
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cardiosynth.core.errors import InputError
from cardiosynth.core.random import generator
from cardiosynth.core.store import checkpoints, read_json, read_rows
from cardiosynth.training.loop import Player, TrainingSettings, fit
from cardiosynth.training.state import load_weights

from .tasks import Adversarial, Denoising, Following, names

SETTINGS = TrainingSettings(
    steps=12, batch_size=2, learning_rate=1e-2, warmup_steps=3, schedule="cosine", ema_decay=0.9,
    log_every=2, checkpoint_every=5, precision="fp32",
)  # fmt: skip
RECORD = {"stage": "toy", "numbers": [1, 2]}


def changed(**values) -> TrainingSettings:
    return SETTINGS.model_copy(update=values)


def assert_same_files(one: Path, other: Path) -> None:
    for name in ("model.safetensors", "training.safetensors"):
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), key


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    return {task: fit(task(), SETTINGS, folder / task.__name__, RECORD) for task in (Denoising, Adversarial, Following)}


@pytest.mark.parametrize("task", [Denoising, Adversarial, Following])
@pytest.mark.parametrize("stop_at", [1, 5, 7])
def test_a_stopped_run_goes_on_to_the_same_bits(task, stop_at, unbroken, tmp_path):
    stopped = fit(task(), SETTINGS, tmp_path, RECORD, stop_at=stop_at)
    assert stopped.name == f"step-{stop_at:07d}"
    final = fit(task(), SETTINGS, tmp_path, RECORD)
    assert_same_files(final, unbroken[task])
    assert (tmp_path / "metrics.jsonl").read_text() == (unbroken[task].parent / "metrics.jsonl").read_text()


def test_work_after_the_last_checkpoint_is_done_again_the_same(unbroken, tmp_path):
    class Killed(Denoising):
        steps = 0

        def batch(self, generators):
            self.steps += 1
            if self.steps == 9:
                raise KeyboardInterrupt
            return super().batch(generators)

    with pytest.raises(KeyboardInterrupt):
        fit(Killed(), SETTINGS, tmp_path, RECORD)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [2, 4, 6, 8]
    assert [path.name for path in checkpoints(tmp_path)] == ["step-0000005"]
    (tmp_path / ".partial-0-step-0000010").mkdir()
    final = fit(Denoising(), SETTINGS, tmp_path, RECORD)
    assert_same_files(final, unbroken[Denoising])
    assert (tmp_path / "metrics.jsonl").read_text() == (unbroken[Denoising].parent / "metrics.jsonl").read_text()
    assert not list(tmp_path.glob(".partial-*"))


def test_the_first_step_is_plain_adamw_on_the_clipped_gradient(tmp_path):
    settings = changed(steps=1, warmup_steps=0, schedule="constant", max_gradient_norm=0.01, ema_decay=0.0)
    by_hand = Denoising(dropout=0, norm=False)
    rng = [torch.Generator(), torch.Generator()]
    batch = by_hand.batch(rng)

    class Fixed(Denoising):
        def batch(self, generators):
            return batch

    by_hand.loss(batch)["total"].backward()
    norm = nn.utils.clip_grad_norm_(by_hand.module.parameters(), 0.01)
    torch.optim.AdamW(by_hand.module.parameters(), lr=1e-2, weight_decay=0.01).step()
    final = fit(Fixed(dropout=0, norm=False), settings, tmp_path, RECORD)
    for name, value in load_file(final / "model.safetensors").items():
        torch.testing.assert_close(value, by_hand.module.state_dict()[name])
    assert norm > 0.01


def test_a_player_moves_from_its_first_step_on(tmp_path):
    begun = {name: value.clone() for name, value in Adversarial().module.state_dict().items()}
    after = load_file(fit(Adversarial(), changed(ema_decay=0.0), tmp_path, RECORD, stop_at=3) / "model.safetensors")
    assert torch.equal(after["judge.weight"], begun["judge.weight"])
    assert not torch.equal(after["maker.weight"], begun["maker.weight"])
    after = load_file(fit(Adversarial(), changed(ema_decay=0.0), tmp_path, RECORD, stop_at=4) / "model.safetensors")
    assert not torch.equal(after["judge.weight"], begun["judge.weight"])


def test_a_player_moves_at_its_own_pace(tmp_path):
    class Uneven(Adversarial):
        def players(self):
            maker, judge = super().players()
            return [maker, replace(judge, first_step=0, pace=4.0)]

    settings = changed(steps=1, learning_rate=1e-4, schedule="constant", warmup_steps=0, weight_decay=0, ema_decay=0.0)
    begun = {name: value.clone() for name, value in Adversarial().module.state_dict().items()}
    after = load_file(fit(Uneven(), settings, tmp_path, RECORD) / "model.safetensors")
    # Adam's first step is the learning rate, whatever the gradient.
    for name, rate in (("maker.weight", 1e-4), ("judge.weight", 4e-4)):
        assert (after[name] - begun[name]).abs().median().item() == pytest.approx(rate, rel=1e-2)


def test_a_finished_run_returns_at_once(unbroken):
    class Untouchable(Denoising):
        def players(self):
            raise AssertionError("nothing is left to do")

    again = fit(Untouchable(), SETTINGS, unbroken[Denoising].parent, RECORD)
    assert again == unbroken[Denoising]


def test_a_finished_run_may_be_given_more_steps(tmp_path):
    def record(settings):
        return {"settings": {"training": settings.model_dump(mode="json")}, "code_version": f"0.{settings.steps}"}

    few = changed(steps=2, schedule="constant", keep_checkpoints=1)
    more = few.model_copy(update={"steps": 4, "log_every": 1})
    fit(Adversarial(), few, tmp_path, record(few))
    final = fit(Adversarial(), more, tmp_path, record(more))
    assert checkpoints(tmp_path) == [final]
    assert read_json(tmp_path / "config.json")["training"]["steps"] == 4
    assert read_json(final / "record.json")["code_version"] == "0.4"
    straight = fit(Adversarial(), more, tmp_path / "straight", record(more))
    assert_same_files(final, straight)


@pytest.mark.parametrize(
    ("settings", "record", "parts"),
    [
        (changed(learning_rate=1e-3), RECORD, ("training.learning_rate = 0.01, not 0.001", "another run folder")),
        (SETTINGS, {**RECORD, "numbers": [1, 3]}, ("numbers.1 = 2, not 3",)),
        (SETTINGS, {"stage": "toy"}, ("numbers.0 = 1, not nothing",)),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(settings, record, parts, tmp_path):
    fit(Adversarial(), SETTINGS, tmp_path, RECORD, stop_at=1)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError) as error:
        fit(Adversarial(), settings, tmp_path, record)
    for part in (str(tmp_path), *parts):
        assert part in str(error.value)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_run_without_a_checkpoint_is_begun_anew(unbroken, tmp_path):
    (tmp_path / "config.json").write_text('{"training": {"learning_rate": 5.0}}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "maker/total": 7.0}\n')
    final = fit(Adversarial(), SETTINGS, tmp_path, RECORD)
    assert_same_files(final, unbroken[Adversarial])
    for name in ("config.json", "metrics.jsonl"):
        assert (tmp_path / name).read_bytes() == (unbroken[Adversarial].parent / name).read_bytes()


def test_a_full_disk_is_told_and_the_last_whole_checkpoint_stays(unbroken, tmp_path, monkeypatch):
    import safetensors.torch

    def full(tensors, path):
        raise safetensors.SafetensorError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", lambda t, p: full(t, p) if "0010" in str(p) else save_file(t, p))
        with pytest.raises(InputError, match=r"step-0000010 cannot be written .*No space left.* free space"):
            fit(Denoising(), SETTINGS, tmp_path, RECORD)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["step-0000005"]
    assert_same_files(fit(Denoising(), SETTINGS, tmp_path, RECORD), unbroken[Denoising])


def test_outside_the_main_thread_signals_are_left_alone(unbroken, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        final = pool.submit(fit, Denoising(), SETTINGS, tmp_path, RECORD).result()
    assert_same_files(final, unbroken[Denoising])


def test_a_gradient_that_is_not_finite_names_player_and_step(tmp_path):
    class Diverging(Adversarial):
        steps = 0

        def tell(self, batch):
            self.steps += 1
            loss = super().tell(batch)["total"]
            return {"total": loss * math.inf if self.steps == 2 else loss}

    with pytest.raises(InputError, match="'judge' at step 5 is not finite"):
        fit(Diverging(), SETTINGS, tmp_path, RECORD)
    assert not checkpoints(tmp_path)


def test_a_loss_that_is_not_finite_names_its_part_step_and_cases(tmp_path):
    class Broken(Adversarial):
        def make(self, batch):
            parts = super().make(batch)
            return parts | {"l1": parts["l1"] / (batch["step"] != 6)}

    with pytest.raises(
        InputError, match=r"the loss \(l1\) of 'maker' at step 7 is not finite on the cases image-"
    ) as error:
        fit(Broken(), SETTINGS, tmp_path, RECORD)
    drawn = Adversarial().batch([generator(SETTINGS.seed, "batch", 6, index) for index in range(2)])
    assert ", ".join(sorted(names(drawn))) in str(error.value)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-0000005"]


@pytest.fixture
def interruptible():
    """Ctrl-C as in the foreground: background jobs, which test runs may be, are started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_the_caller_ignores_stays_ignored(unbroken, tmp_path, interruptible):
    class Nudged(Denoising):
        def loss(self, batch):
            signal.raise_signal(signal.SIGINT)
            return super().loss(batch)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert_same_files(fit(Nudged(), SETTINGS, tmp_path, RECORD), unbroken[Denoising])


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_finish_and_be_saved(number, unbroken, tmp_path):
    class Interrupted(Denoising):
        steps = 0

        def loss(self, batch):
            self.steps += 1
            if self.steps == 4:
                signal.raise_signal(number)
            return super().loss(batch)

    before = signal.getsignal(number)
    with pytest.raises(SystemExit, match="step 4 of 12; the same command goes on") as stop:
        fit(Interrupted(), SETTINGS, tmp_path, RECORD, label="toy")
    assert stop.value.code == 128 + number
    assert signal.getsignal(number) is before
    final = fit(Denoising(), SETTINGS, tmp_path, RECORD)
    assert_same_files(final, unbroken[Denoising])


@pytest.mark.usefixtures("interruptible")
def test_a_signal_after_the_last_step_is_not_lost(unbroken, tmp_path, monkeypatch):
    def interrupt_at_the_end(run: Path, keep: int) -> None:
        if (run / "step-0000012").exists():
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("cardiosynth.training.loop.remove_old", interrupt_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        fit(Denoising(), SETTINGS, tmp_path, RECORD)
    assert_same_files(checkpoints(tmp_path)[-1], unbroken[Denoising])


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_is_obeyed_at_once(tmp_path):
    class Impatient(Denoising):
        def loss(self, batch):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            return super().loss(batch)

    with pytest.raises(KeyboardInterrupt):
        fit(Impatient(), SETTINGS, tmp_path, RECORD)


def test_the_callers_randomness_is_left_alone(tmp_path):
    task = Denoising()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(task, changed(steps=1), tmp_path, RECORD)
    assert torch.equal(torch.rand(3), expected)


def test_what_was_drawn_before_does_not_matter(unbroken, tmp_path):
    torch.manual_seed(99)
    assert_same_files(fit(Denoising(), SETTINGS, tmp_path, RECORD), unbroken[Denoising])


def test_a_checkpoint_explains_itself_and_loads_strictly(unbroken):
    final = unbroken[Adversarial]
    record = read_json(final / "record.json")
    assert record["training"] == json.loads(SETTINGS.model_dump_json())
    assert (record["step"], record["stage"], record["numbers"]) == (12, "toy", [1, 2])
    task = Adversarial()
    assert load_weights(task.module, final.parent) == record["fingerprint"]
    averaged, state = load_file(final / "model.safetensors"), load_file(final / "training.safetensors")
    for name, value in task.module.state_dict().items():
        assert torch.equal(value, averaged[name])
        assert not torch.equal(value, state[f"raw.{name}"])
    with pytest.raises(InputError, match=r"has no weight 'unused'"):
        load_weights(Denoising().module, final.parent)
    with pytest.raises(InputError, match=r"has shape \(1, 1, 3, 3, 3\) instead of"):
        load_weights(nn.ModuleDict({"maker": nn.Conv3d(1, 2, 3), "judge": nn.Conv3d(1, 1, 3)}), final)
    with pytest.raises(InputError, match=r"which this network does not know"):
        load_weights(nn.ModuleDict({"maker": nn.Conv3d(1, 1, 3)}), final / "model.safetensors")


def test_rows_hold_every_part_and_curves_are_there(unbroken):
    run = unbroken[Adversarial].parent
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    maker = {"step", "learning_rate", "maker/total", "maker/l1", "maker/fooling", "maker/gradient_norm"}
    assert set(rows[0]) == maker
    assert set(rows[1]) == {*maker, "judge/total", "judge/gradient_norm"}
    assert rows[0]["maker/total"] == pytest.approx(rows[0]["maker/l1"])
    assert rows[1]["maker/total"] == pytest.approx(rows[1]["maker/l1"] + 0.1 * rows[1]["maker/fooling"])
    assert list(run.glob("events.out.tfevents.*"))


def test_old_checkpoints_are_removed(tmp_path):
    fit(Adversarial(), changed(checkpoint_every=3, keep_checkpoints=2), tmp_path, RECORD)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-0000009", "step-0000012"]


def test_bfloat16_moves_the_loss_only_a_little(tmp_path):
    rows = {}
    for precision in ("fp32", "bf16"):
        settings = changed(steps=2, precision=precision)
        fit(Denoising(dropout=0), settings, tmp_path / precision, RECORD)
        rows[precision] = read_rows(tmp_path / precision / "metrics.jsonl")[0]["denoiser/total"]
    assert rows["bf16"] == pytest.approx(rows["fp32"], rel=0.02)
    assert rows["bf16"] != rows["fp32"]


def test_parameters_from_elsewhere_are_our_mistake(tmp_path):
    class Stray(Adversarial):
        def players(self):
            return [Player("stray", [nn.Parameter(torch.ones(1))], self.make)]

    with pytest.raises(AssertionError, match="stray has parameters from elsewhere"):
        fit(Stray(), SETTINGS, tmp_path, RECORD)


def test_a_device_that_is_not_there_is_named(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InputError, match="--device cuda"):
        fit(Adversarial(), SETTINGS, tmp_path / "run", RECORD, device="cuda")
    assert not (tmp_path / "run").exists()
