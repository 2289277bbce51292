"""Texts as features: what comes later moves nothing before, planted texts are found by what is trained on them, shuffled ones are not."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import random_panel
from servers.llama import LlamaServer
from test_texts import coin, reader

from ploutos.advisor.config import LLMConfig
from ploutos.advisor.cutoff import UNKNOWN
from ploutos.advisor.texts import READINGS, TEXT_NAMES, TextReader, Texts, read_texts, require_reader, scores_of, with_texts, without_texts
from ploutos.config import load_config
from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError, DataError
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.text_controls import TEXT_CONTROLS, shuffled, text_controls, words_of
from ploutos.evaluation.text_skill import bag_of_words, with_outcomes
from ploutos.features.build import FeatureSpec, build_features
from ploutos.llm.backends.ollama import OllamaBackend
from ploutos.market.data_spec import DataSpec
from ploutos.reporting.texts_page import render_run_texts, run_sentences
from ploutos.strategies.regression import fit_regression
from ploutos.strategies.spec import RegressionSpec
from ploutos.walk_forward import FoldSpec, plan_folds

FOLDS = FoldSpec(train_years=1, validation_months=2, test_months=12)
LOGISTIC = RegressionSpec(models=("logistic",))
PRICES = FeatureSpec(include=("log_return_1", "volatility_20", "rsi_14"))


@pytest.fixture(scope="module")
def bars():
    return random_panel(23, n_bars=900, n_symbols=3)


@pytest.fixture(scope="module")
def features(bars):
    return build_features(bars, PRICES)


def planted(bars, right: float, seed: int = 4) -> Texts:
    """A text on every tradable bar but the last, a minute before its close: most say which way the next bar goes, in plain words."""
    random, rows = np.random.default_rng(seed), []
    for bar, s in np.argwhere(bars.tradable[:-1] & bars.tradable[1:]):
        rose = bool(bars.mark[bar + 1, s] > bars.open[bar + 1, s])
        told = rose if random.random() < right else not rose
        words = f"orders {'grew' if told else 'fell'} in region {random.integers(30)}"
        rows.append((bars.symbols[s], pd.Timestamp(bars.available_at[bar], tz="UTC") - pd.Timedelta(minutes=1), "news", words))
    return Texts(pd.DataFrame(rows, columns=["symbol", "available_at", "source", "text"]))


def says(words: str) -> str:
    return "up" if "grew" in words else "down"


def controls_of(bars, features, texts, say):
    readings = reader(say).read(texts, bars)
    told = with_texts(features, scores_of(readings), bars, 1)
    folds = plan_folds(bars, told, FOLDS)
    models = [[fit_regression(bars, told, fold, EnvSpec(), LOGISTIC, "logistic")] for fold in folds]
    return text_controls(
        bars, told, readings, folds, models, EnvSpec(), LOGISTIC, 1, UNKNOWN, BootstrapSpec(replications=300), seed=2, draws=40
    )


# --- what is learnt from texts


def test_planted_texts_are_found_by_model_and_bag_of_words_and_shuffled_ones_are_not(bars, features, tmp_path):
    found = controls_of(bars, features, planted(bars, right=0.8), says)
    signs = {of: found.pair("logistic", of, "prices").sign for of in ("model", "words", "shuffled")}
    assert signs == {"model": 1, "words": 1, "shuffled": 0}
    assert found.pair("logistic", "model", "shuffled").sign == 1
    assert found.pair("logistic", "model", "words").sign == 0
    assert [row.sign for row in found.skill.readers] == [1, 1]
    assert (found.skill.more.sign, found.skill.shuffled.beaten) == (0, 40)
    sentences = run_sentences(found)
    assert sentences[0].startswith("Reading texts helped: beside prices alone, logistic earns a year with the model's readings ")
    page = render_run_texts(found)
    for text in ("Did reading texts help?", "a bag of words", "shuffled readings", "prices alone"):
        assert text in page
    TEXT_CONTROLS.write(found, tmp_path / "texts.json")
    assert TEXT_CONTROLS.read(tmp_path / "texts.json") == found


def test_texts_that_say_nothing_are_not_said_to_help(bars, features):
    found = controls_of(bars, features, planted(bars, right=0.5), says)
    assert [each.sign for each in found.pairs] == [0] * 5
    assert run_sentences(found)[0].startswith("Reading texts did not help beyond chance")
    assert found.skill.readers[0].sign == 0


def test_a_few_texts_make_no_test_and_a_run_without_supervised_models_none_of_those(bars, features):
    few = Texts(planted(bars, right=0.8).frame.iloc[:40])
    readings = reader(says).read(few, bars)
    told = with_texts(features, scores_of(readings), bars, 1)
    found = text_controls(
        bars, told, readings, plan_folds(bars, told, FOLDS), (), EnvSpec(), LOGISTIC, 1, UNKNOWN, BootstrapSpec(replications=100), 2, 40
    )
    assert (found.skill, found.accounts, found.pairs) == (None, (), ())
    assert "are too few to test the readings by themselves; 60 are needed" in run_sentences(found)[0]
    render_run_texts(found)


# --- the clock


@settings(max_examples=8, deadline=None)
@given(cut=st.integers(30, 890), stands=st.integers(1, 8), data=st.data())
def test_texts_after_a_close_move_no_row_up_to_it(bars, features, cut, stands, data):
    """Later texts are deleted, or turned round and delayed: rows up to the close are the same to the last bit, a bag of words' too."""
    texts = Texts(planted(bars, right=0.7, seed=data.draw(st.integers(0, 3))).frame.iloc[::3].reset_index(drop=True))
    later = texts.frame["available_at"].dt.tz_localize(None).to_numpy() > bars.available_at[cut]
    deleted = Texts(texts.frame[~later].reset_index(drop=True))
    turned = texts.frame.assign(text=texts.frame["text"].where(~later, "orders fell"))
    turned["available_at"] += pd.to_timedelta(np.where(later, data.draw(st.integers(0, 5000)), 0), unit="min")
    first = _observed(texts, bars, features, stands)
    for other in (deleted, Texts(turned.sort_values(["available_at", "symbol"], kind="stable", ignore_index=True))):
        for was, now in zip(first, _observed(other, bars, features, stands), strict=True):
            np.testing.assert_array_equal(was[: cut + 1], now[: cut + 1])
    assert any(not np.array_equal(was[cut + 1 :], now[cut + 1 :], equal_nan=True) for was, now in
               zip(first, _observed(deleted, bars, features, stands), strict=True))  # fmt: skip


def _observed(texts, bars, features, stands):
    scored = scores_of(reader(says).read(texts, bars))
    return [with_texts(features, each, bars, stands).values for each in (scored, words_of(scored, bars, stands))]


def test_bars_that_come_later_change_nothing_that_a_bag_of_words_said(bars):
    texts, past = planted(bars, right=0.7), bars.head(500)
    long, short = (scores_of(reader(says).read(texts, each)) for each in (bars, past))
    scores = bag_of_words(with_outcomes(long, bars, 5), 5)[: len(short)]
    np.testing.assert_array_equal(scores, bag_of_words(with_outcomes(short, past, 5), 5))


def test_text_features_stand_behind_those_of_prices_and_only_where_a_symbol_has_a_bar(bars, features):
    readings = reader(coin).read(planted(bars, right=0.5), bars)
    told = with_texts(features, scores_of(readings), bars, 3)
    assert told.names == features.names + TEXT_NAMES
    np.testing.assert_array_equal(without_texts(told).values, features.values)
    assert np.isfinite(told.values[bars.tradable][:, -len(TEXT_NAMES) :]).all()
    assert np.isnan(told.values[~bars.tradable][:, -len(TEXT_NAMES) :]).all()
    np.testing.assert_array_equal(told.ready, features.ready)  # nothing is known of texts: that is a number too


def test_shuffled_readings_are_the_same_ones_at_other_texts(bars):
    readings = reader(coin).read(planted(bars, right=0.5), bars)
    other = shuffled(readings, 1)
    for name in ("direction", "confidence"):
        assert sorted(other[name]) == sorted(readings[name])
    assert (other["direction"] != readings["direction"]).any()
    assert other[["symbol", "bar", "available_at"]].equals(readings[["symbol", "bar", "available_at"]])
    assert shuffled(readings, 1).equals(other)


def test_readings_come_back_from_their_file_with_who_read(bars, tmp_path):
    readings = reader(coin).read(planted(bars, right=0.5), bars)
    READINGS.write(readings, tmp_path / "readings.parquet")
    again = READINGS.read(tmp_path / "readings.parquet")
    assert again.attrs == {"model": "scripted", "digest": "d1", "mask": "all", "provider": "ollama", "asked": "llama3.2"}
    require_reader(again, LLMConfig())
    with pytest.raises(ConfigError, match=r"were read by llama3.2 \(ollama\), and the settings name other \(ollama\); start from phase 1"):
        require_reader(again, LLMConfig(model="other"))
    pd.testing.assert_frame_equal(again, readings, check_dtype=False)


# --- the file


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", "cannot be read as CSV"),
        ("symbol,available_at,source,text\n", "holds no text about S0, S1, S2; found no rows"),
        ("symbol,available_at,source,text\nS0,2001-05-02 20:05,news,a\n", "available_at of row 0 is 2001-05-02 20:05; expected"),
        ("symbol,available_at,source,text\nS0,yesterdayZ,news,a\n", "available_at of row 0 is yesterdayZ; expected timestamps with a zone"),
        ("symbol,available_at,source,text\nXYZ,2001-05-02T20:05Z,news,a\n", "holds no text about S0, S1, S2; found XYZ"),
        ("symbol,available_at,source,text\nS0,1999-05-02T20:05Z,news,a\n", "none of 1 text became available within the bars"),
        ("symbol,available_at,source,text\nS0,2031-05-02T20:05Z,news,a\nS1,1999-05-02T20:05Z,news,b\n", "1 before and 1 after"),
        ("symbol,available_at,source\nS0,2001-05-02T20:05Z,news\n", "has no column text"),
    ],
)  # fmt: skip
def test_a_csv_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, bars, rows, words):
    path = tmp_path / "texts.csv"
    path.write_text(rows)
    with pytest.raises(DataError, match=re.escape(words)) as error:
        reader(coin).read(read_texts(path, bars.symbols), bars)
    assert "\n" not in str(error.value)


def test_a_csv_is_read_as_parquet_is_and_what_is_left_out_is_said(tmp_path, bars, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "texts.csv"
    path.write_text(
        "symbol,available_at,source,text\nS1,2001-05-02T16:05:00-04:00,news,b\nS0,2001-05-02T20:05:00.5Z,news,a\n"
        "XYZ,2001-05-02T20:05Z,news,c\nS0,1999-05-02T20:05Z,news,old\n"
    )
    asker = reader(coin)
    readings = asker.read(read_texts(path, bars.symbols), bars)
    assert readings["available_at"].tolist() == [pd.Timestamp("2001-05-02T20:05Z"), pd.Timestamp("2001-05-02T20:05:00.5Z")]
    assert len(asker.backend.asked) == 2
    assert "1 of 4 texts are about other symbols" in caplog.text
    assert "1 texts came before the first bar, 0 after the last" in caplog.text


@pytest.mark.parametrize(
    ("mask", "shown"),
    [
        ("all", "ASSET beat OTHER on DATE."), ("names", "ASSET beat OTHER on 2021-05-03."), ("dates", "S0: S0 beat S1 on DATE."),
        ("levels", "S0: S0 beat S1 on 2021-05-03."), ("none", "S0: S0 beat S1 on 2021-05-03."),
    ],
)  # fmt: skip
def test_a_mask_hides_of_a_text_what_it_says(bars, mask, shown):
    at = pd.Timestamp(bars.available_at[100], tz="UTC")
    frame = pd.DataFrame({"symbol": ["S0"], "available_at": at, "source": "news", "text": "S0 beat S1 on 2021-05-03."})
    asker = reader(coin, mask=mask)
    asker.read(Texts(frame), bars)
    assert asker.backend.asked == [shown]


# --- a real model, where there is one


@pytest.mark.slow
def test_a_real_small_model_reads_texts_to_the_schema(small_model):
    bars = random_panel(3, n_bars=40, n_symbols=2)
    with LlamaServer({"small": small_model}) as server:
        config = LLMConfig(model="small", host=server.host)
        readings = TextReader(OllamaBackend(config, server.host), config, None).read(planted(bars, right=0.8), bars)
    assert not readings["abstained"].any()
    assert readings["direction"].isin([-1, 0, 1]).all()
    assert readings[["surprise", "confidence"]].stack().between(0, 1).all()


# --- settings


def test_a_mock_cannot_read_and_a_run_without_texts_is_what_it_was():
    with pytest.raises(ConfigError, match=r"llm.provider is mock, a fixed rule that cannot read"):
        load_config("demo", overrides=["data.texts=texts.csv"])
    with pytest.raises(ConfigError, match=r"data.texts is not set"):
        load_config("demo", overrides=["data.texts_stand_bars=9"])
    assert not {"texts", "texts_stand_bars"} & set(DataSpec().model_dump(mode="json"))
    config = load_config("demo", overrides=["data.texts=texts.csv", "llm.provider=ollama"])
    assert config.data.model_dump(mode="json")["texts_stand_bars"] == 5
