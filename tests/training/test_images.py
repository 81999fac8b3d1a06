"""Images in memory or in their plate stores: the same pixels, read ahead, bounded, verified."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

from coda.errors import IntegrityError
from coda.training import images as images_module
from coda.training.crops import Cropper
from coda.training.images import MemoryImages, StoredImages, image_source, memory_limit
from coda.training.methods.dino.state import new_state
from coda.training.methods.dino.training import train_dino


def drawn(count=20, seed=0):
    source = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 48, (count,), generator=source)
    return rows, torch.randint(0, 17, (count,), generator=source), torch.randint(0, 17, (count,), generator=source)


def test_the_place_of_the_images_does_not_change_the_pixels(stored, fields):
    memory, stores = image_source(fields, torch.device("cpu")), image_source(stored, torch.device("cpu"))
    assert isinstance(memory, MemoryImages)
    assert isinstance(stores, StoredImages)
    assert memory.shape == stores.shape == (48, 3, 32, 32)
    rows, tops, lefts = drawn()
    assert torch.equal(memory.cut(rows, tops, lefts, 16), stores.cut(rows, tops, lefts, 16))
    assert torch.equal(memory.whole(rows), stores.whole(rows))


def test_training_from_the_stores_ends_with_the_bits_of_training_from_memory(stored, fields, tiny):
    params = tiny("crops.normalise=image", "crops.gamma_sd=0.1", "crops.brightness_sd=0.1")
    ends = []
    for where in (fields, stored):
        state = new_state(params, seed=1)
        train_dino(where, params, params.pretrain, state=state, seed=1)
        ends.append({name: tensor.clone() for name, tensor in state.state_dict().items()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_field_is_read_once_while_it_is_held_and_no_more_are_held_than_allowed(stored):
    read, one = [], 3 * 32 * 32
    counted = replace(stored)
    object.__setattr__(counted, "read_one", lambda row: read.append(row) or stored.read_one(row))
    images = StoredImages(counted, torch.device("cpu"), held_bytes=4 * one)
    images.expect([np.array([0, 1]), np.array([2, 1])])
    corner = torch.zeros(3, dtype=torch.long)
    images.cut(torch.tensor([0, 1, 2]), corner, corner, 8)
    images.cut(torch.tensor([0, 1, 2]), corner, corner, 16)
    assert sorted(read) == [0, 1, 2]
    for first in range(3, 12, 3):
        images.cut(torch.tensor([first, first + 1, first + 2]), corner, corner, 8)
        assert len(images._held) <= 4
    images.cut(torch.tensor([0, 1, 2]), corner, corner, 8)
    assert sorted(read) == sorted([*range(12), 0, 1, 2])


def test_other_pixels_and_damaged_stores_are_refused(stored):
    wrong = replace(stored.places[3], crc32c=0)
    tampered = replace(stored, places=(*stored.places[:3], wrong, *stored.places[4:]))
    with pytest.raises(IntegrityError, match="not the one that was ingested"):
        tampered.read_one(3)
    images = StoredImages(tampered, torch.device("cpu"))
    images.expect([np.array([3])])
    with pytest.raises(IntegrityError, match="field_3"):
        images.whole(torch.tensor([1, 3]))
    gone = replace(stored, places=(replace(stored.places[0], store=stored.places[0].store.with_name("gone")),))
    with pytest.raises(IntegrityError, match="damaged"):
        gone.read_one(0)


def test_taking_rows_reads_nothing_and_keeps_their_order(stored):
    chosen = stored.take(np.array([5, 2]))
    assert [place.image_id for place in chosen.places] == ["field_5", "field_2"]
    assert chosen.table["image_id"].tolist() == ["field_5", "field_2"]
    assert len(stored.take(np.arange(48) % 2 == 0)) == 24
    assert np.array_equal(chosen.read([1, 0], threads=2), np.stack([stored.read_one(2), stored.read_one(5)]))


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_cut_together_what_one_would(fields, tiny, processes):
    """Shares of a batch, put together in order, are the views of the whole batch bit for bit."""
    cropper = Cropper(torch.from_numpy(fields.images), tiny("crops.brightness_sd=0.2", "crops.gamma_sd=0.1").crops)
    anchors, partners = torch.arange(6), torch.arange(6, 12)

    def views(part=None):
        return cropper.views(anchors, partners, torch.Generator().manual_seed(3), part)

    whole = views()
    each = 6 // processes
    shares = [views(slice(rank * each, (rank + 1) * each)) for rank in range(processes)]
    for name, crops in (("globals_", 2), ("locals_", 6)):
        parts = [getattr(share, name).unflatten(0, (crops, each)) for share in shares]
        assert torch.equal(torch.cat(parts, dim=1).flatten(0, 1), getattr(whole, name))


def test_processes_of_one_machine_share_its_memory(monkeypatch, tmp_path):
    """Else each of eight would load a source that fits once."""
    monkeypatch.setattr(images_module, "CONTAINER_LIMIT", tmp_path / "memory.max")
    whole = memory_limit()
    (tmp_path / "memory.max").write_text(f"{whole // 2}\n")
    assert memory_limit() == whole // 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory_limit() == whole // 2 // 4
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_limit() == whole // 4


def test_parts_of_a_source_are_cut_as_the_source_is(fields):
    rows = np.array([5, 40, 2, 17])
    part = image_source(fields.take(rows).take(np.array([3, 0])), torch.device("cpu"))
    whole = image_source(fields, torch.device("cpu"))
    assert part.shape == (2, 3, 32, 32)
    corner = torch.tensor([3, 7])
    chosen = torch.tensor([17, 5])
    assert torch.equal(part.cut(torch.arange(2), corner, corner, 16), whole.cut(chosen, corner, corner, 16))
    assert torch.equal(part.whole(torch.arange(2)), whole.whole(chosen))


def test_a_source_is_brought_to_a_device_once_for_all_of_its_parts_and_is_forgotten_with_it(fields):
    own = replace(fields, pool=fields.pool.copy())
    device = torch.device("meta")
    sources = [image_source(part, device, "device") for part in (own, own.take(np.arange(9)), own)]
    assert len({id(source._images) for source in sources}) == 1
    assert len(images_module._UPLOADED) == 1
    del own, sources
    gc.collect()
    assert not images_module._UPLOADED
