"""The strategist against local servers whose skill is known: found, not found, caught; every limit; nothing asked twice."""

import json
import logging
import re
import sys

import numpy as np
import pandas as pd
import pytest
from servers.llama import LlamaServer
from servers.scripted import ScriptedServer
from test_cutoff import claimed, known

import ploutos.agents
from ploutos.advisor.config import LLMConfig
from ploutos.agents import Optimizer, StrategistSpec, create_optimizer_from_engine
from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError, HistoryError, LLMStopped, LLMUnavailable
from ploutos.evaluation.metrics import sharpe_ratio
from ploutos.llm.reading import Unreadable, read_answer
from ploutos.market.bars import Bars, align
from ploutos.registry.trials import TrialRegistry
from ploutos.research.strategist.conversation import decision_form, given
from ploutos.research.strategist.executor import BacktestExecutor
from ploutos.research.strategist.loop import lawful_values, sweep_sets
from ploutos.research.sweep import Sweeper
from ploutos.strategies.rules import RULES
from ploutos.walk_forward import Range

CLEAN = known("1990-01-31")
OPTIMUM, LAGS = 140, 400
OWN_RULE = f'''"""Follows the sign that the return had some bars ago."""
import numpy as np
from ploutos.strategies.rules import Parameter, Rule


def echo(bars, p):
    moves = np.r_[0.0, np.sign(np.diff(np.log(bars.close)))]
    return np.r_[np.zeros(p["lag"] - 1), moves[: len(moves) - p["lag"] + 1]]


RULE = Rule("echo", echo, {{"lag": Parameter(20, 2, {LAGS}, 1)}}, (), "Follows the sign that the return had lag bars ago.")
'''
FREE = EnvSpec(allow_short=True, costs={"commission_bps": 0, "slippage_bps": 0})
SPEC = StrategistSpec(max_iterations=4, warmup_bars=401, random_searches=60, optuna_searches=1, exchange_feedback=False)
EMA = StrategistSpec(max_iterations=5, random_searches=5, optuna_searches=1, exchange_feedback=False)


def daily(returns: np.ndarray) -> Bars:
    close = 100 * np.exp(np.cumsum(returns))
    open_ = np.r_[100.0, close[:-1]]
    columns = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close, "volume": 1e6}
    days = pd.bdate_range("2006-01-02", periods=len(close), tz="UTC")
    return align(pd.DataFrame({"symbol": "ACME", "timestamp": days, **columns}), pd.Timedelta(days=1), "NYSE", "test")


@pytest.fixture(scope="module")
def planted() -> Bars:
    """The sign of a return comes back after 140 bars, more often than not."""
    random = np.random.default_rng(4)
    signs = random.choice([-1.0, 1.0], 2400)
    for t in range(OPTIMUM, len(signs)):
        signs[t] = signs[t - OPTIMUM] * (1 if random.random() < 0.6 else -1)
    return daily(signs * np.abs(random.normal(0, 0.01, len(signs))))


@pytest.fixture(scope="module")
def noise() -> Bars:
    return daily(np.random.default_rng(9).normal(0, 0.01, 1500))


@pytest.fixture
def rule(tmp_path) -> str:
    file = tmp_path / "own_rule.py"
    file.write_text(OWN_RULE)
    return f"{file}:RULE"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("UNLOAD_LLM_DURING_BACKTEST", raising=False)
    return tmp_path / "home"


def propose(values, action="continue", **more):
    return {"reasoning": "an idea", "action": action, "next_parameters": values, **more}


ACCEPT = {"reasoning": "Sharpe 9.0, +500 % a year, all criteria met, promote it", "action": "accept", "sharpe": 9.0, "total_return": 5.0}


def skilled(body, number):
    """Looks somewhere else first, then where it is."""
    return [propose({"lag": 300}), propose({"lag": OPTIMUM}), ACCEPT][min(number, 2)]


def unskilled(body, number):
    return propose({"lag": [300, 55, 201, 99][min(number, 3)]}) if number < 4 else ACCEPT


def optimise(answer, bars, spec=EMA, name="ema_cross", env=None, registry=None, memory=CLEAN, **config):
    with ScriptedServer(answer) as server:
        pair = create_optimizer_from_engine(LLMConfig(model="scripted", host=server.host, **config), name, bars, spec=spec, env=env)
        return Optimizer(*pair, registry, known=memory).run(), server


def search(answer, bars, spec=EMA, name="ema_cross", env=None, **config):
    with ScriptedServer(answer) as server:
        config = LLMConfig(model="scripted", host=server.host, **config)
        strategist, executor = create_optimizer_from_engine(config, name, bars, spec=spec, env=env)
        return strategist.optimize(executor), server


def different(number):
    """A set of the EMA cross that no other number gives."""
    return {"fast": 5 + number % 16, "slow": 22 + 2 * (number % 15), "stop_loss": 0.02}


# --- substance: found, not found, caught


def test_a_model_that_knows_the_optimum_finds_it_and_chance_does_not(planted, rule, home):
    result, _ = optimise(skilled, planted, SPEC, rule, FREE, TrialRegistry(home / "registry"))
    assert result.best == {"lag": OPTIMUM}
    assert result.promoted, result.reasons
    assert result.found.sharpe > 1 > result.defaults.sharpe
    assert result.sentences[0].startswith("Found: lag 140")
    random = result.controls[0]
    assert random.name == "random"
    assert random.p <= 0.05
    assert "the model searched better than chance" in result.sentences[1]


def test_a_model_without_skill_finds_nothing_and_that_is_said(planted, rule):
    result, _ = optimise(unskilled, planted, SPEC, rule, FREE)
    assert not result.promoted
    assert result.sentences[0].startswith("Nothing is promoted: ")
    assert result.controls[0].p > 0.05
    assert "the model searched no better than chance" in result.sentences[1]


@pytest.mark.parametrize(("memory", "share"), [(None, "100%"), (claimed("1990-01-31"), "100%"), (known("2099-01-31"), "100%")])
def test_a_last_window_that_the_model_may_remember_promotes_nothing(planted, rule, home, memory, share):
    """Never probed; only claimed by its maker; within its training data."""
    result, _ = optimise(skilled, planted, SPEC, rule, FREE, TrialRegistry(home / "registry"), memory)
    assert result.window_clean == 0
    assert [reason for reason in result.reasons if reason.startswith(f"{share} of the last window's sessions are not shown to be clean")]
    assert not result.promoted


def test_a_model_that_always_accepts_and_claims_returns_gets_nothing_promoted(planted, rule):
    result, server = optimise(lambda body, number: ACCEPT, planted, SPEC, rule, FREE)
    assert not result.promoted
    assert result.best is result.found is None
    assert result.reasons == ("the model proposed nothing that has a score",)
    assert result.ended == "3 answers in a row could not be used (max_unusable)"
    assert "not accepted: you have proposed nothing that has a score" in json.loads(server.chats[1]["messages"][1]["content"])["notes"]


def test_a_liar_that_proposes_once_and_then_accepts_is_overruled_by_the_criteria(planted, rule):
    result, _ = optimise(lambda body, number: ACCEPT if number else propose({"lag": 300}), planted, SPEC, rule, FREE)
    assert result.iterations[2].action == "accept"
    assert result.iterations[2].notes[0].startswith("not accepted: walk-forward Sharpe ratio ")
    assert not result.promoted


def test_the_same_model_without_true_feedback_is_a_control(planted, rule):
    """It climbs only where it is told the truth: it asks for whatever the best so far says is up."""

    def follows(body, number):
        tried = [each["parameters"]["lag"] for each in body["history"]]
        best = body["best"]["parameters"]["lag"] if body["best"] else 20
        return propose({"lag": next(lag for lag in (*range(best + 1, LAGS), 2) if lag not in tried)})

    spec = SPEC.model_copy(update={"exchange_feedback": True, "random_searches": 5, "max_iterations": 2})
    result, server = optimise(follows, planted, spec, rule, FREE)
    assert [control.name for control in result.controls] == ["random", "optuna", "exchanged feedback"]
    assert len(server.chats) == 2 * result.n_questions or len(server.chats) == 2 * result.n_questions - 1, "the first question is shared"
    told = [json.loads(chat["messages"][1]["content"])["history"] for chat in server.chats]
    assert len({json.dumps(each[1]) for each in told if len(each) > 1}) == 2, "one proposal, two stories"
    assert "With exchanged feedback the same model ended with " in " ".join(result.sentences)


# --- scores


def test_scores_are_those_of_disjoint_tests_behind_their_training(planted, rule):
    executor = BacktestExecutor(RULES["ema_cross"], planted, EnvSpec(allow_short=True), EMA)
    found = executor.evaluate(RULES["ema_cross"].defaults)
    assert all(before.stop == after.start for before, after in zip(executor.tests, executor.tests[1:], strict=False))
    assert executor.tests[-1].stop == executor.development.stop <= executor.last_window.start - EMA.gap_bars
    assert len(np.unique(found.sessions)) == len(found.sessions) == executor.tests[-1].stop - executor.tests[0].start
    sets = [found.values, *(moved for *_, moved in executor.neighbours(found.values))]
    returns = []
    for part in executor.tests:  # fitted again on all bars before each test
        sweeper = Sweeper(RULES["ema_cross"], planted.head(part.stop), EnvSpec(allow_short=True))
        train = sweeper.run(sets, Range(start=executor.development.start, stop=part.start - EMA.gap_bars))
        returns.append(sweeper.run([sets[int(np.nanargmax(train.sharpe))]], part).returns[0])
    assert np.concatenate(returns).tobytes() == found.returns.tobytes()
    assert found.walk_forward == sharpe_ratio(np.concatenate(returns), planted.sessions_per_year)


def test_the_last_window_changes_nothing_that_the_model_is_told(planted):
    answers = [lambda body, number: propose(different(number))] * 2
    cut = BacktestExecutor(RULES["ema_cross"], planted, EnvSpec(), EMA).last_window.start
    other = daily(np.r_[np.diff(np.log(np.r_[100.0, planted.close[:cut, 0]])), np.random.default_rng(1).normal(0, 0.05, 2400 - cut)])
    (_, one), (_, two) = (search(answer, bars) for answer, bars in zip(answers, (planted, other), strict=True))
    assert len(one.chats) == 5
    assert two.chats == [], "each question was asked before, and the cassette has its answer"


def test_what_fails_has_no_score_and_is_never_the_best(rule, noise):
    flat = daily(np.zeros(1500))
    executor = BacktestExecutor(RULES["ema_cross"], flat, EnvSpec(), EMA)
    found = executor.evaluate(RULES["ema_cross"].defaults)
    assert found.failed == "it never traded"
    assert found.score == -np.inf
    result, server = optimise(lambda body, number: propose(different(number)), flat)
    assert {row.walk_forward for row in result.iterations} == {None}
    assert result.reasons == ("the model proposed nothing that has a score",)
    history = json.loads(server.chats[2]["messages"][1]["content"])["history"]
    assert history[-1] == {"parameters": different(1), "failed": "it never traded"}


def test_a_history_too_short_is_one_sentence():
    with pytest.raises(HistoryError, match="sessions; expected 20 or more"):
        BacktestExecutor(RULES["ema_cross"], daily(np.zeros(250) + 0.001), EnvSpec(), EMA)


# --- what may be said


def test_decisions_are_read_as_models_write_them():
    form = decision_form(RULES["ema_cross"])
    text = """<think>{"action": "stop"}</think> Here: ```json
    {"Reasoning": "%s", "ACTION": "Iterate", "sharpe": 9,
    "next_parameters": {"fast": 7, "slow": 30.0, "stop_loss": 0.02, "take_profit": 1}}```"""
    decision = read_answer(text % ("long " * 200), form)
    assert (decision.action, len(decision.reasoning)) == ("continue", 300)
    assert given(decision.next_parameters) == {"fast": 7, "slow": 30, "stop_loss": 0.02, "take_profit": 1}
    with pytest.raises(Unreadable):
        read_answer('{"action": "buy"}', form)


def test_code_clips_refuses_and_says_so():
    rule = RULES["ema_cross"]
    assert lawful_values(rule, {"fast": 99, "slow": 30.4, "stop_loss": 0.0124, "x": 1}) == (
        {"fast": 20, "slow": 30, "stop_loss": 0.01}, ("x is not a parameter and was left out", "fast 99 was clipped to 20"),
    )  # fmt: skip
    assert lawful_values(rule, {"fast": 20, "slow": 20, "stop_loss": 0.01})[1][-1] == "refused: fast must be below slow, found 20 and 20"
    assert lawful_values(rule, {"fast": 9, "slow": float("nan")})[1] == ("refused: next_parameters lacks a number for slow, stop_loss",)


def test_a_sweep_is_the_grid_that_was_asked_for_within_bounds():
    rule, form = RULES["ema_cross"], decision_form(RULES["ema_cross"])

    def ranges(**said):
        said = {name: dict(zip(("min", "max", "step"), each, strict=True)) for name, each in said.items()}
        return given(form.model_validate({"reasoning": "", "action": "sweep", "ranges": said}).ranges)

    sets, notes = sweep_sets(rule, ranges(fast=(0, 9, 2), slow=(40, 44, 2)), rule.defaults, 100)
    assert [(values["fast"], values["slow"]) for values in sets] == [(fast, slow) for fast in (5, 7, 9) for slow in (40, 42, 44)]
    assert notes == ()
    thinned, notes = sweep_sets(rule, ranges(fast=(5, 20, 1), slow=(20, 50, 1)), rule.defaults, 50)
    assert len(thinned) <= 50
    assert notes == ("496 combinations were thinned out to 50 (max_combinations)",)
    for said, why in (
        ({}, "names no parameter"),
        ({"fast": (9, 5, 1)}, "min <= max"),
        ({"fast": (20, 20, 1), "slow": (20, 20, 1)}, "below slow"),
    ):
        assert why in sweep_sets(rule, ranges(**said), rule.defaults, 50)[1][-1]


def test_a_sweep_is_run_and_each_of_its_sets_is_a_trial(planted, rule, home):
    def sweeps(body, number):
        return {"reasoning": "", "action": "sweep", "ranges": {"lag": {"min": 130, "max": 150, "step": 5}}} if number == 0 else ACCEPT

    registry = TrialRegistry(home / "registry")
    result, _ = optimise(sweeps, planted, SPEC.model_copy(update={"random_searches": 20}), rule, FREE, registry)
    assert result.best == {"lag": OPTIMUM}
    assert result.iterations[1].swept == 5
    by = [trial.facts["by"] for trial in registry.trials()]
    assert by.count("strategist sweep") + by.count("strategist neighbour") >= 5 + 2 + 3 - 1
    assert by.count("strategist last window") == result.n_looks == 1
    again, _ = optimise(sweeps, planted, SPEC.model_copy(update={"random_searches": 20}), rule, FREE, registry)
    assert again.n_trials == result.n_trials, "the same search is no new trial"
    assert again.n_looks == 1


def test_prompts_are_blind_unless_told_otherwise_and_fit_the_context(planted):
    _, server = search(lambda body, number: propose(different(number)), planted)
    for chat in server.chats:
        text = json.dumps(chat["messages"])
        assert "ACME" not in text
        assert not re.search(r"20(0|1)\d-|\bNYSE\b", text)
        assert sum(len(message["content"].encode()) for message in chat["messages"]) < 4096 - 256
    _, server = search(lambda body, number: propose(different(number)), planted, reveal=True)
    assert json.loads(server.chats[0]["messages"][1]["content"])["market"]["symbols"] == ["ACME"]


# --- limits


def endless(body, number):
    return propose(different(number))


@pytest.mark.parametrize(
    ("limits", "answer", "ended", "n_questions"),
    [
        ({"max_iterations": 3, "patience": 9}, endless, "3 proposals were run (max_iterations)", 3),
        ({"max_questions": 2}, endless, "2 questions were asked (max_questions)", 2),
        ({"max_tokens": 1500}, endless, "1500 tokens were used (max_tokens=1500)", 2),
        ({"max_seconds": 1e-9}, endless, " s were used (max_seconds=1e-09)", 1),
        ({"max_unusable": 2}, lambda b, n: "no JSON at all", "2 answers in a row could not be used (max_unusable)", 2),
        ({"max_unusable": 2}, lambda b, n: propose(RULES["ema_cross"].defaults), "2 answers in a row could not be used (max_unusable)", 2),
        ({"patience": 2, "min_improvement": 50.0, "max_iterations": 9}, endless, "2 proposals in a row improved nothing (patience)", 3),
        ({}, lambda b, n: {"reasoning": "", "action": "stop"}, "the model stopped", 1),
        ({"max_sweeps": 0, "max_unusable": 1}, lambda b, n: {"action": "sweep", "ranges": {"fast": {"min": 5, "max": 9, "step": 1}}},
         "1 answers in a row could not be used (max_unusable)", 1),
    ],
)  # fmt: skip
def test_every_limit_ends_the_search(noise, limits, answer, ended, n_questions):
    found, _ = search(answer, noise, EMA.model_copy(update=limits))
    assert found.ended.endswith(ended)
    assert abs(found.n_questions - n_questions) <= (1 if "patience" in limits else 0)


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"min_sharpe": 50.0}, "at least 50 is needed"),
        ({"max_drawdown": 1e-6}, "at most 0.0% is allowed"),
        ({"min_fills": 10**6}, "at least 1000000 are needed"),
        ({"max_overfitting": 1e-6}, "at most 1e-06 is allowed"),
    ],
)
def test_every_criterion_overrules_an_acceptance(planted, rule, limits, why):
    spec = SPEC.model_copy(update={"random_searches": 2, "optuna_searches": 0, **limits})
    result, _ = optimise(skilled, planted, spec, rule, FREE)
    assert any(why in note for note in result.iterations[3].notes)
    assert any(why in reason for reason in result.reasons)
    assert not result.promoted


def test_what_was_tried_elsewhere_raises_the_bar(planted, rule, home):
    """The deflated ratio falls with trials that somebody else left on the same sessions."""
    registry = TrialRegistry(home / "registry")
    spec = SPEC.model_copy(update={"random_searches": 2, "optuna_searches": 0})
    result, _ = optimise(skilled, planted, spec, rule, FREE, registry)
    for lag in range(6):  # each of another seed, so that the cassette knows none of its questions
        tries = lambda body, number, lag=lag: propose({"lag": 200 + 16 * lag + 4 * number})  # noqa: E731
        optimise(tries, planted, spec, rule, FREE, registry, seed=1 + lag)
    again, _ = optimise(skilled, planted, spec, rule, FREE, registry)
    assert again.n_independent > 3 * result.n_independent > 5
    assert again.n_looks > result.n_looks
    assert again.deflated < result.deflated


# --- again, and the GPU


def test_a_search_that_was_cut_off_asks_nothing_twice(noise):
    with ScriptedServer(endless) as server:
        config = LLMConfig(model="scripted", host=server.host, timeout_s=5)
        server.refuse_after = 3
        pair = create_optimizer_from_engine(config, data=noise, spec=EMA)
        pair[0].llm._sleep = lambda _: None
        with pytest.raises(LLMUnavailable, match="3 answers are kept; run again"):
            pair[0].optimize(pair[1])
        server.refuse_after = 10**9
        strategist, executor = create_optimizer_from_engine(config, data=noise, spec=EMA)
        found = strategist.optimize(executor)
        assert found.n_questions == 5
        assert len(server.chats) == 5
        assert len({json.dumps(chat["messages"]) for chat in server.chats}) == 5


@pytest.mark.slow
def test_a_real_small_model_ends_a_search_in_one_of_its_limits_and_unloads(noise, small_model):
    """Form and counts only: every turn is run, refused or unreadable, and told so."""
    with LlamaServer({"small": small_model}) as server:
        config = LLMConfig(model="small", host=server.host)
        spec = EMA.model_copy(update={"max_questions": 4, "max_unusable": 4, "patience": 4})
        strategist, executor = create_optimizer_from_engine(config, data=noise, spec=spec, unload_llm_during_backtest=True)
        found = strategist.optimize(executor)
        assert server.loaded() == []
    assert 1 <= found.n_questions <= 4
    assert found.ended
    assert found.n_tokens > 500 * found.n_questions
    for turn in found.iterations[1:]:
        assert turn.evaluation is not None or turn.notes or turn.action in ("accept", "stop")
    assert server.unloads == len(strategist.memory.unloads)


def test_the_runs_limit_holds_for_search_and_control_together_and_a_search_of_recorded_answers_ends_where_it_did(noise):
    """`llm.limits` counts what is asked anew and ends the command; the search's own limits count every answer and end the search."""
    with ScriptedServer(endless) as server:

        def optimizer(limit):
            limits = {} if limit is None else {"questions": limit}
            config = LLMConfig(model="scripted", host=server.host, limits=limits)
            spec = EMA.model_copy(update={"max_questions": 3, "patience": 9, "exchange_feedback": True})
            return Optimizer(*create_optimizer_from_engine(config, data=noise, spec=spec))

        with pytest.raises(LLMStopped, match=r"llm.limits.questions=4 is reached after 4 questions"):
            optimizer(4).run()  # three of the search, the first of which the control shares, and one more
        assert len(server.chats) == 4
        result = optimizer(2).run()  # the four are recorded, and there is room for the rest
        assert result.n_questions == 3
        n_asked = len(server.chats)
        assert n_asked <= 6
        repeated = optimizer(1).run()  # nothing is asked anew: the limit is not touched
        assert (repeated.n_questions, repeated.ended, len(server.chats)) == (3, result.ended, n_asked)


def test_the_model_leaves_the_gpu_for_backtests_and_is_back_for_the_next_question(noise, monkeypatch):
    with ScriptedServer(endless) as server:
        config = LLMConfig(model="scripted", host=server.host)
        spec = EMA.model_copy(update={"max_iterations": 2})
        strategist, executor = create_optimizer_from_engine(config, data=noise, spec=spec, unload_llm_during_backtest=True)
        strategist.optimize(executor)
        assert server.events == ["chat", "unload", "load", "chat", "unload"]
        monkeypatch.setenv("UNLOAD_LLM_DURING_BACKTEST", "True")
        strategist, executor = create_optimizer_from_engine(config, data=noise, spec=spec, unload_llm_during_backtest=False)
        strategist.optimize(executor)
        assert server.events.count("unload") == 2


def test_the_lines_of_the_document_run(sample_bars, noise, monkeypatch, gguf):
    monkeypatch.setitem(sys.modules, "agents", ploutos.agents)
    with LlamaServer({"llama3.2": gguf}) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        df = pd.DataFrame(
            {name.title(): getattr(sample_bars, name)[:, 0] for name in ("open", "high", "low", "close", "volume")},
            index=pd.DatetimeIndex(sample_bars.timestamps, tz="UTC", name="Date"),
        )
        space = {"df": df}
        exec(
            "from agents import create_optimizer_from_engine\n"
            "from agents.llm_client import LLMConfig, LLMProvider\n"
            "config = LLMConfig(provider=LLMProvider.OLLAMA, model='llama3.2')\n"
            "strategist, executor = create_optimizer_from_engine(\n"
            "    llm_config=config, strategy_name='ema_cross', data=df, unload_llm_during_backtest=True)\n",
            space,
        )
        assert space["executor"].bars.n_bars == sample_bars.n_bars
        assert space["strategist"].memory.wanted
    with pytest.raises(ConfigError, match="macd is not a rule"):
        create_optimizer_from_engine(LLMConfig(provider="mock"), "macd", noise)


@pytest.mark.slow
def test_a_real_model_of_nonsense_keeps_the_form_for_ten_iterations(noise, gguf):
    """llama.cpp holds it to the schema; what it says is noise, and so is what it finds."""
    with LlamaServer({"tiny": gguf}) as server:
        config = LLMConfig(model="tiny", host=server.host, temperature=0.8, num_predict=400)
        spec = EMA.model_copy(update={"max_iterations": 10, "max_questions": 10, "max_unusable": 10, "patience": 10, "random_searches": 5})
        strategist, executor = create_optimizer_from_engine(config, data=noise, spec=spec)
        result = Optimizer(strategist, executor).run()
    assert not result.promoted
    assert result.n_questions >= 1
    assert {row.action for row in result.iterations[1:]} <= {"continue", "accept", "stop", "change_direction", "sweep", "unreadable"}


def test_the_mock_says_that_it_is_a_rule_and_turns_are_told_as_they_end(noise, caplog):
    turns = []
    with caplog.at_level(logging.INFO, logger="ploutos"):
        pair = create_optimizer_from_engine(LLMConfig(provider="mock"), data=noise, spec=EMA, on_iteration=turns.append)
        result = Optimizer(*pair).run()
    assert result.is_mock
    assert result.sentences[-1] == "The strategist was a fixed rule, not a language model."
    assert [turn.number for turn in turns] == list(range(len(result.iterations)))
    assert f"iteration {turns[-1].number}: " in caplog.text
