"""Running pictures through a model: several threads at once, and a model that is given back as it was."""

import threading

import pytest
import torch
from PIL import Image
from tiny_checkpoint import tiny_model

from dsh_hf import encoding


@pytest.mark.parametrize("training", [True, False])
def test_threads_that_encode_with_one_model_leave_its_mode_alone(training, monkeypatch):
    model, picture = tiny_model().train(training), Image.new("RGB", (8, 8), "red")
    expected = tiny_model().encode_images(picture)
    began, ended = threading.Event(), threading.Event()
    batches, modes = encoding.prepared_batches, []

    def slow(pictures, prepare, batch_size):
        for batch in batches(pictures, prepare, batch_size):
            if len(pictures) == 1:  # the first one: the second begins while it encodes, and ends after it
                second.start()
                assert began.wait(10)
            else:
                began.set()
                assert ended.wait(10)
            modes.append(model.training)
            yield batch

    monkeypatch.setattr(encoding, "prepared_batches", slow)
    found = []
    second = threading.Thread(target=lambda: found.extend(model.encode_images([picture, picture])))
    found.append(model.encode_images(picture))
    ended.set()
    second.join()
    assert modes == [False, False]
    assert len(found) == 3
    assert all((code == expected).all() for code in found)
    assert model.training is training


def test_a_model_that_cannot_be_moved_is_given_back_as_it_was():
    model, picture = tiny_model().train(), Image.new("RGB", (8, 8), "red")
    with pytest.raises((RuntimeError, AssertionError)):
        model.encode_images(picture, device="cuda:99")
    assert model.training
    assert model.device == torch.device("cpu")
    model.eval().encode_images(picture)
    assert not encoding._uses


def test_another_device_waits_for_those_that_encode(monkeypatch):
    model, picture = tiny_model(), Image.new("RGB", (8, 8), "red")
    began, go_on = threading.Event(), threading.Event()
    batches, order = encoding.prepared_batches, []

    def slow(*args):
        began.set()
        assert go_on.wait(10)
        order.append("encoded")
        yield from batches(*args)

    def on_meta():
        with encoding._ready(model, "meta"):  # no accelerator is needed to be elsewhere
            order.append(model.device.type)

    monkeypatch.setattr(encoding, "prepared_batches", slow)
    first = threading.Thread(target=lambda: model.encode_images(picture))
    first.start()
    assert began.wait(10)
    monkeypatch.setattr(model, "to", lambda device: order.append(str(device)) or model)
    other = threading.Thread(target=on_meta)
    other.start()
    other.join(0.1)
    assert order == []
    go_on.set()
    first.join()
    other.join()
    assert order[0] == "encoded"
    assert "meta" in order[1:]
