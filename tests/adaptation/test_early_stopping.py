"""Looking without labels: what is measured, what is kept, when it ends, and that a resumed run ends alike."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from coda.adaptation import early_stopping as stopping_module
from coda.adaptation import hooks as hooks_module
from coda.adaptation.coda import adapt_extractor
from coda.adaptation.early_stopping import LabelFreeEarlyStopping
from coda.adaptation.pairing_policy import choose_pairing
from coda.adaptation.serving import Served, Service, Way, serve
from coda.errors import ConfigError, TransientError
from coda.training.checkpoint import Checkpoints


def watch_of(base, fields, params, alignment="none"):
    frozen = base.heads["standardise" if alignment == "standardise" else "none"]
    way = Way("watch", alignment, frozen.head, frozen.source)
    return LabelFreeEarlyStopping(base.state.teacher, way, fields, params)


def criterion(name, patience=2, every=2):
    chosen = f"{{every: {every}, criterion: {name}, alignment: none, patience: {patience}}}"
    return f"adaptation.stopping={chosen}"


@pytest.fixture
def scripted(monkeypatch):
    """Makes every look return predictions whose marginal entropy rises with the number that is next."""

    def play(numbers):
        numbers = iter(numbers)

        def answer(extractor, ways, fields, params):
            share = next(numbers)
            p = np.tile(np.array([1 - share, share, 0.0], dtype=np.float32), (len(fields), 1))
            return Service({}, p, {ways[0].name: Served(p, p)})

        monkeypatch.setattr(stopping_module, "serve", answer)

    return play


def test_the_best_look_is_kept_and_patience_counts_looks_without_a_better_one(tiny, make_base, make_plates, scripted):
    base, params = make_base(), tiny(criterion("marginal_entropy"))
    scripted([0.1, 0.2, 0.4, 0.3, 0.4])
    watch, teacher = watch_of(base, make_plates(), params), base.state.teacher
    states, endings = [], []
    for iteration in (2, 4, 6, 8):
        with torch.no_grad():
            teacher.vit.cls_token.add_(1.0)
        states.append(deepcopy(teacher.state_dict()))
        watch.evaluate(iteration, teacher)
        endings.append(watch.should_stop())
    assert endings == [False, False, False, True], "a tie is no better one"
    assert watch.get_extra_state()["best"] == 4
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in watch.best().items())
    assert [look["iteration"] for look in watch.get_extra_state()["looks"]] == [0, 2, 4, 6, 8]


def test_the_released_extractor_serves_on_where_nothing_is_better(tiny, make_base, make_plates, scripted):
    base, params = make_base(), tiny(criterion("marginal_entropy"))
    scripted([0.4, 0.2, 0.1])
    before = deepcopy(base.state.teacher.state_dict())
    watch = watch_of(base, make_plates(), params)
    with torch.no_grad():
        base.state.teacher.vit.cls_token.add_(1.0)
    watch.evaluate(2, base.state.teacher)
    assert not watch.should_stop()
    watch.evaluate(4, base.state.teacher)
    assert watch.should_stop()
    assert watch.get_extra_state()["best"] == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in watch.best().items())


def test_without_a_criterion_the_numbers_are_told_and_the_last_weights_serve(tiny, make_base, make_plates, scripted):
    scripted([0.4, 0.2, 0.1, 0.0])
    watch = watch_of(base := make_base(), make_plates(), tiny(criterion("none")))
    for iteration in (2, 4, 6):
        assert set(watch.evaluate(iteration, base.state.teacher)) == {"marginal_entropy", "agreement"}
        assert not watch.should_stop()
    assert watch.best() is None
    assert watch.state_dict() == {}
    assert watch.get_extra_state()["best"] is None


def test_a_watch_goes_on_from_its_records(tiny, make_base, make_plates, scripted):
    params, fields = tiny(criterion("marginal_entropy")), make_plates()
    scripted([0.1, 0.3, 0.2, 0.1, 0.1])
    base = make_base()
    watch = watch_of(base, fields, params)
    watch.evaluate(2, base.state.teacher)
    watch.evaluate(4, base.state.teacher)
    other = watch_of(make_base(), fields, params)
    other.load_state_dict(watch.state_dict())
    other.set_extra_state(watch.get_extra_state())
    assert other.get_extra_state() == watch.get_extra_state()
    assert not other.should_stop()
    other.evaluate(6, base.state.teacher)
    assert other.should_stop()
    assert all(torch.equal(tensor, watch.best()[name]) for name, tensor in other.best().items())


@pytest.mark.parametrize("alignment", ["none", "standardise", "coral"])
def test_the_numbers_by_brute_force_over_treated_wells(tiny, make_base, make_plates, alignment):
    fields, base, params = make_plates(batches=2), make_base(), tiny(criterion("none"))
    watch = watch_of(base, fields, params, alignment)
    numbers = watch.evaluate(2, base.state.teacher)
    frozen = base.heads["standardise" if alignment == "standardise" else "none"]
    way = Way("x", alignment, frozen.head, frozen.source)
    p = serve(base.state.teacher, [way], fields, params).ways["x"].probabilities.astype(float)
    table = fields.table
    rows = [i for i in range(len(table)) if table["Metadata_pert_type"][i] == "trt"]
    mean = np.mean([p[i] for i in rows], axis=0)
    classes = min(3, len({table["Metadata_Treatment"][i] for i in rows}))
    assert numbers["marginal_entropy"] == pytest.approx(-(mean * np.log(mean)).sum() / np.log(classes), abs=1e-6)
    gaps = []
    for name in sorted({table["Metadata_Treatment"][i] for i in rows}):
        own = [i for i in rows if table["Metadata_Treatment"][i] == name]
        pairs = {True: [], False: []}
        for i in own:
            for j in rows:
                if table["Metadata_Batch"][i] != table["Metadata_Batch"][j]:
                    pairs[j in own].append(p[i] @ p[j])
        gaps.append(np.mean(pairs[True]) - np.mean(pairs[False]))
    assert numbers["agreement"] == pytest.approx(np.mean(gaps), abs=1e-6)


def test_a_criterion_that_cannot_be_computed_is_refused_before_training(tiny, make_base, make_plates):
    with pytest.raises(ConfigError, match="marginal_entropy"):
        watch_of(make_base(), make_plates(plates=1), tiny(criterion("agreement")))
    controls = make_plates()
    only = controls.take((controls.table["Metadata_pert_type"] == "negcon").to_numpy())
    with pytest.raises(ConfigError, match="no treated field"):
        watch_of(make_base(), only, tiny(criterion("none")))


def adapt(base, fields, params, **options):
    pairing = choose_pairing(fields.table, min_pairable_share=0.5)
    return adapt_extractor(base.state, fields, params, pairing, seed=1, heads=base.heads, **options)


def test_what_serves_is_the_best_look_and_the_run_ends_early(tiny, make_base, make_plates, scripted, monkeypatch):
    fields = make_plates()
    params = tiny(criterion("marginal_entropy", patience=2))
    scripted([0.1, 0.3, 0.2, 0.2, 0.5])
    result = adapt(base := make_base(), fields, params)
    assert result.iterations == 6
    assert result.stopping["best"] == 2
    shorter = tiny(criterion("none"))
    scripted([0.0] * 9)
    stopped = {}

    class Spy(LabelFreeEarlyStopping):
        def evaluate(self, iteration, teacher):
            stopped[iteration] = deepcopy(teacher.state_dict())
            return super().evaluate(iteration, teacher)

    monkeypatch.setattr(hooks_module, "LabelFreeEarlyStopping", Spy)
    adapt(make_base(), fields, shorter)
    for name, tensor in base.state.teacher.state_dict().items():
        assert torch.equal(tensor, stopped[2][name]), name
    assert not torch.equal(stopped[2]["vit.cls_token"], stopped[8]["vit.cls_token"])


OPTIONS = {
    "low rank": ("adaptation.trainable=low_rank",),
    "norms, both anchors": ("adaptation.trainable=norms", "adaptation.anchor={weights: 0.1, features: 0.1}"),
    "first blocks, prototypes frozen": ("adaptation.trainable=first_blocks", "adaptation.dino_head=prototypes_frozen"),
    "diversity, agreement": ("adaptation.diversity.strength=1.0", criterion("agreement", patience=9)),
    "entropy": (criterion("marginal_entropy", every=3, patience=9), "adaptation.dino_head=trained"),
    "everything": (
        "adaptation.trainable=low_rank", "adaptation.anchor={weights: 0.1, features: 0.1}",
        criterion("agreement", patience=9),
        "adaptation.diversity={strength: 1.0, head: standardise, prior: uniform}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_a_resumed_run_ends_with_the_same_bits_with_every_option(tiny, make_base, make_plates, tmp_path, option):
    fields, params = make_plates(), tiny(*OPTIONS[option])
    whole = adapt(first := make_base(), fields, params)
    checkpoints, asked = Checkpoints(tmp_path), []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 5

    with pytest.raises(TransientError):
        adapt(make_base(), fields, params, checkpoints=checkpoints, should_stop=stop)
    resumed = adapt(second := make_base(), fields, params, checkpoints=checkpoints)
    for name, tensor in first.state.state_dict().items():
        assert torch.equal(tensor, second.state.state_dict()[name]), name
    assert whole.log == resumed.log
    assert whole.stopping == resumed.stopping


def test_a_checkpoint_of_other_options_is_refused(tiny, make_base, make_plates, tmp_path):
    fields, checkpoints, asked = make_plates(), Checkpoints(tmp_path), []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 5

    with pytest.raises(TransientError):
        adapt(make_base(), fields, tiny(), checkpoints=checkpoints, should_stop=stop)
    with pytest.raises(ConfigError, match="another experiment"):
        adapt(make_base(), fields, tiny("adaptation.anchor.weights=0.1"), checkpoints=checkpoints)
