"""The training benchmark compares like with like."""

import pytest

from tests.benchmarks import training


def test_the_peers_loss_is_ours_and_another_one_is_noticed(monkeypatch: pytest.MonkeyPatch):
    training.check_losses("sngan_convnet", "float32", batch_size=2)
    monkeypatch.setattr(training, "PENALTY", 2000.0)
    make = training.reference

    def other(ours: training.Ours) -> training.ReferenceLoop:
        loop = make(ours)
        loop.gradient_penalty = 1000.0
        return loop

    monkeypatch.setattr(training, "reference", other)
    with pytest.raises(AssertionError, match="our loss"):
        training.check_losses("sngan_convnet", "float32", batch_size=2)


def test_both_sides_take_every_step_and_move_their_weights():
    ours = training.Ours("sngan_convnet", "float32", batch_size=2)
    peer = training.reference(ours)
    for side, networks in (
        (ours, (ours.state.model.base, ours.state.model.energy_network)),
        (peer, (peer.generator, peer.energy)),
    ):
        for step, network in zip(("base_step", "energy_step"), networks, strict=True):
            before = [p.detach().clone() for p in network.parameters()]
            if side is ours:
                for optimizer in ours.state.optimizers.values():
                    optimizer.learning_rate = 1e-4
            getattr(side, step)()
            assert any(not p.equal(old) for p, old in zip(network.parameters(), before, strict=True))
