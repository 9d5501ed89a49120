"""What the admin API needs of an engine is what the supervisor offers."""

from __future__ import annotations

import inspect

from engine.admin.engine import Answers, Engine
from engine.supervisor.steering import Steering


def test_the_supervisor_offers_every_call_of_the_protocol_with_its_parameters():
    for name, call in inspect.getmembers(Engine, inspect.isfunction):
        if not name.startswith("_"):
            offered = getattr(Steering, name)
            assert list(inspect.signature(offered).parameters) == list(inspect.signature(call).parameters)
            assert inspect.iscoroutinefunction(offered) == inspect.iscoroutinefunction(call), name


def test_answers_keep_results_apart_from_errors():
    answers = Answers({0: {"rows": []}}, {1: "link: shard 1 is down"})
    assert (answers.results[0], answers.errors[1]) == ({"rows": []}, "link: shard 1 is down")
