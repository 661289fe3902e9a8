"""The board: records of workers reach the driver once, in order."""

import pytest
import ray

from gebm.cluster.progress_board import ProgressBoard, drain, give_sign, post, signs_of_life

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_records_of_workers_reach_the_driver_once_and_in_order() -> None:
    board = ProgressBoard()

    @ray.remote
    def train(rank: int) -> None:
        from gebm.cluster.progress_board import post

        for step in range(50):
            post(board, {"rank": rank, "step": step})

    ray.get([train.remote(rank) for rank in range(2)])
    post(board, {"rank": "driver", "step": 0})
    records = []
    for _ in range(100):
        records += drain(board)
        if len(records) == 101:
            break
    assert drain(board) == []
    for rank in range(2):
        assert [record["step"] for record in records if record["rank"] == rank] == list(range(50))
    board.close()


def test_posting_to_a_lost_board_does_no_harm() -> None:
    board, other = ProgressBoard(), ProgressBoard()
    board.close()
    post(board, {"step": 1})
    post(other, {"step": 2})
    assert drain(other) == [{"step": 2}]
    other.close()


def test_the_latest_signs_of_life_are_kept_and_answered_by_the_drivers_word() -> None:
    board = ProgressBoard()
    assert signs_of_life(board, "") == {}
    assert give_sign(board, 1, {"round": 3}, patience=30) == ""
    assert give_sign(board, 0, {"round": 4}, patience=30) == ""
    assert give_sign(board, 1, {"round": 5}, patience=30) == ""
    assert signs_of_life(board, "stop") == {0: {"round": 4}, 1: {"round": 5}}
    assert give_sign(board, 0, {"round": 5}, patience=30) == "stop"
    signs_of_life(board, "")
    assert give_sign(board, 0, {"round": 6}, patience=30) == ""
    board.close()


def test_a_board_that_is_gone_for_good_can_be_told_from_one_that_is_busy() -> None:
    board = ProgressBoard()
    give_sign(board, 0, {}, patience=30)
    board.close()
    with pytest.raises(ray.exceptions.ActorDiedError):
        for _ in range(100):
            give_sign(board, 0, {}, patience=30)
