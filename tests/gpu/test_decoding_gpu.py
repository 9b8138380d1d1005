"""Decoding on a GPU, with and without CUDA graphs, against plain forwards.

Every test runs on the CPU too, where the steps of a graph run one by one.
"""

import pytest
import torch
from transformers import PreTrainedModel

from services.student_trainer.decoding_gpt2 import Gpt2Steps
from services.student_trainer.decoding_graph import GraphSteps
from services.student_trainer.decoding_prompts import Prompts
from tests.decoding_helpers import ALIKE, UNLIKE, check, few_words, gpt2, random_student, uniforms, write


def on(device: torch.device, model: PreTrainedModel) -> PreTrainedModel:
    model.to(device)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("cuda_graph", [False, True], ids=["steps", "graph"])
@pytest.mark.parametrize("prompts", [ALIKE, UNLIKE, UNLIKE[:1]], ids=["alike", "unlike", "one"])
def test_log_probabilities_are_those_of_a_plain_forward(
    device: torch.device, prompts: list[list[int]], cuda_graph: bool
) -> None:
    model, numbers = on(device, random_student(gpt2())), uniforms(len(prompts))
    for temperature in (1.0, 0.6):
        check(model, prompts, numbers, write(model, prompts, numbers, temperature, cuda_graph=cuda_graph), temperature)


@pytest.mark.parametrize("prompts", [ALIKE, UNLIKE], ids=["alike", "unlike"])
def test_a_graph_shrinks_as_rows_end(device: torch.device, prompts: list[list[int]]) -> None:
    """To an eighth: three smaller graphs after the first."""
    model, many, numbers = on(device, few_words("gpt2")), prompts * 8, uniforms(40, room=34)
    written = write(model, many, numbers, cuda_graph=True)
    check(model, many, numbers, written)
    assert len(set(written.lengths_B.tolist())) >= 10
    assert (written.lengths_B > 12).sum() < 20
    assert (written.lengths_B > 26).any()


@pytest.mark.parametrize("cuda_graph", [False, True], ids=["steps", "graph"])
def test_weights_are_read_anew_each_time(device: torch.device, cuda_graph: bool) -> None:
    model = on(device, random_student(gpt2()))
    write(model, ALIKE, uniforms(5), cuda_graph=cuda_graph)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    check(model, ALIKE, uniforms(5), write(model, ALIKE, uniforms(5), cuda_graph=cuda_graph))


def test_a_graph_and_steps_agree_in_bfloat16(device: torch.device) -> None:
    model = on(device, random_student(gpt2(), sharpen=1.0).bfloat16())
    graph, steps = (write(model, ALIKE, uniforms(5), cuda_graph=switch) for switch in (True, False))
    assert torch.equal(graph.tokens_BT[:, 0], steps.tokens_BT[:, 0])
    same_BT = (graph.tokens_BT == steps.tokens_BT).cumprod(dim=1).bool()
    assert same_BT.float().mean() > 0.5
    torch.testing.assert_close(graph.logprobs_BT[same_BT], steps.logprobs_BT[same_BT], atol=0.05, rtol=0)


def test_a_graph_is_captured_anew_at_half_its_rows(device: torch.device) -> None:
    model = on(device, random_student(gpt2())).eval()
    with torch.inference_mode():
        prompts = Prompts.align(ALIKE[:1] * 40, device)
        graph = GraphSteps(Gpt2Steps(model, prompts, prompts.read(model)[0], 7, fixed=True))
        sizes = []
        for rows in (40, 21, 20, 11, 10, 5, 1):
            graph.keep(torch.arange(rows, device=device))
            assert graph(torch.full((rows,), 7, device=device)).shape == (rows, model.config.vocab_size)
            assert graph.tokens_M is not None
            sizes.append(len(graph.tokens_M))
    assert sizes == [40, 40, 20, 20, 10, 5, 5]  # eight rows and fewer share a graph


@pytest.mark.parametrize("prompts", [ALIKE, UNLIKE], ids=["alike", "unlike"])
def test_a_capture_at_the_last_position_stays_within_the_model(device: torch.device, prompts: list[list[int]]) -> None:
    model, many = on(device, random_student(gpt2())).eval(), prompts * 4
    room = model.config.n_positions - max(map(len, many))
    with torch.inference_mode():
        aligned = Prompts.align(many, device)
        graph = GraphSteps(Gpt2Steps(model, aligned, aligned.read(model)[0], room, fixed=True))
        for step in range(room):
            if step == room - 1:
                graph.keep(torch.arange(3, device=device))
            logits_NV = graph(torch.full((3 if step == room - 1 else len(many),), 7, device=device))
        last = [*many[0], *[7] * room]
        expected_V = model(torch.tensor([last], device=device)).logits[0, -1]
    torch.testing.assert_close(logits_NV[0], expected_V, atol=1e-3, rtol=0)


def test_one_new_token_and_rows_that_end_at_the_last_need_no_step(device: torch.device) -> None:
    model, many = on(device, few_words("gpt2")), ALIKE * 8
    for room in (1, 2, 3, 9):
        numbers = uniforms(40, room=room)
        check(model, many, numbers, write(model, many, numbers, cuda_graph=True))
