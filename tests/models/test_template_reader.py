"""Reading by templates: likelihoods against their definition, and the pipeline with a reader."""

import math

import numpy as np
import pytest
import torch

from models.errors import TrainingError
from models.pipeline import EEGToImagePipeline, load_bundle
from models.template_reader import TemplateReader, window_means
from models.training.templates import (
    Slots,
    Weighed,
    discriminant,
    features_of,
    means_of,
    set_farthest,
    set_lags,
    set_weights,
    set_words,
    slots_of,
)
from tests.tiny_bundle import TINY, make_tiny_bundle, tiny_parts

N_CONCEPTS = 40


def small_reader(**sizes):
    values = {"n_channels": 2, "n_times": 32, "n_concepts": 3, "n_lags": 2, "n_context": 4}
    values |= {"cross_attention_dim": 5, "rank": 6} | sizes
    return TemplateReader(**values)


def test_means_of_windows_are_those_of_training():
    eeg = np.random.default_rng(0).standard_normal((3, 2, 32)).astype(np.float32)
    live = window_means(torch.from_numpy(eeg), 8).numpy()
    np.testing.assert_allclose(live, features_of(means_of(eeg, 8)), atol=1e-6)
    np.testing.assert_allclose(live.reshape(3, 2, 4).sum(2), 0, atol=1e-5)


def test_discriminants_are_log_likelihood_ratios_to_nothing():
    rng = np.random.default_rng(0)
    centres, x = rng.standard_normal((3, 4)), rng.standard_normal((5, 4))
    root = rng.standard_normal((4, 4))
    covariance = root @ root.T + np.eye(4)
    weights, constants = discriminant(centres, covariance)

    def log_density(rest):
        return -0.5 * np.einsum("...i,ij,...j", rest, np.linalg.inv(covariance), rest)

    expected = log_density(x[:, None] - centres) - log_density(x)[:, None]
    np.testing.assert_allclose(x @ weights.T + constants, expected, atol=1e-9)


def test_sliding_windows_are_read_by_the_sum_over_lags():
    rng = np.random.default_rng(1)
    reader = small_reader(rank=8)
    eeg = rng.standard_normal((4, 2, 32)).astype(np.float32)
    features = features_of(means_of(eeg, 8))
    at_lags = rng.standard_normal((2, 3, 8))
    covariance = np.diag(rng.uniform(0.5, 2, 8))
    set_lags(reader, at_lags, covariance)
    found = reader.scores(torch.from_numpy(eeg), is_locked=False).numpy()
    each = [features @ w.T + c for w, c in (discriminant(m, covariance) for m in at_lags)]
    np.testing.assert_allclose(found, np.log(np.mean(np.exp(each), axis=0)), atol=1e-4)


def test_fewer_directions_keep_those_in_which_templates_differ():
    """Templates that lie in two directions are told as well in two as in all."""
    rng = np.random.default_rng(2)
    plane = rng.standard_normal((2, 8))
    at_lags = rng.standard_normal((2, 3, 2)) @ plane
    eeg = torch.from_numpy(rng.standard_normal((4, 2, 32)).astype(np.float32))
    scores = []
    for rank in (2, 6):
        reader = small_reader(rank=rank)
        set_lags(reader, at_lags, np.eye(8))
        scores.append(reader.scores(eeg, is_locked=False).numpy())
    np.testing.assert_allclose(*scores, atol=1e-4)


CAPTIONS = [
    f"a {size} {name} on the {side}"
    for name in ("cat", "dog", "car")
    for size in ("small", "large")
    for side in ("left", "middle", "right")
]
SLOTS = slots_of(CAPTIONS, np.arange(18) // 6)


def test_slots_are_where_captions_of_one_concept_differ():
    assert SLOTS.sizes == (2, 3)
    # In the order of the alphabet: large before small, left, middle, right.
    assert SLOTS.words[:4].tolist() == [[1, 0], [1, 1], [1, 2], [0, 0]]
    assert SLOTS.one_hot()[0].tolist() == [0, 1, 1, 0, 0]
    assert slots_of(["a cat", "a dog"], np.arange(2)).sizes == ()
    with pytest.raises(TrainingError, match="different lengths"):
        slots_of(["a cat", "a small cat"], np.zeros(2))


def said_in(slots, in_context):
    """What captions say beside the mean of all."""
    words = slots.one_hot()
    return np.einsum("nw,wtd->ntd", words - words.mean(axis=0), in_context)


def reader_of_words(noise):
    """A reader that learnt 3,000 epochs of captions: each word adds something to a concept's."""
    rng = np.random.default_rng(3)
    reader = small_reader(slots=SLOTS.sizes)
    reader.contexts.data = torch.randn(3, 4, 5)
    of_concept, of_word = rng.standard_normal((3, 8)), rng.standard_normal((5, 8))
    in_context = rng.standard_normal((5, 4, 5))
    shown = rng.integers(18, size=3000)
    concept, slots = shown // 6, Slots(SLOTS.words[shown], SLOTS.sizes)
    clean = of_concept[concept] + slots.one_hot() @ of_word
    # Windows of an epoch have no mean of their own.
    clean = features_of(clean.reshape(-1, 2, 4))
    features = clean + features_of(noise * rng.standard_normal((3000, 2, 4)))
    contexts = reader.contexts.data.numpy()[concept] + said_in(slots, in_context)
    set_words(reader, features, concept, slots, contexts)
    eeg = torch.from_numpy(features.reshape(-1, 2, 4)).float().repeat_interleave(8, 2)
    return reader, eeg, torch.from_numpy(concept), slots, in_context


def test_words_are_read_by_their_share_of_the_response():
    reader, eeg, concept, slots, _ = reader_of_words(1.0)
    found = reader.words_of(eeg, concept).split(list(SLOTS.sizes), 1)
    for said, word in zip(found, torch.from_numpy(slots.words).T, strict=True):
        torch.testing.assert_close(said.sum(1), torch.ones(len(said)))
        best = said.max(1)
        is_right = (best.indices == word).float()
        assert 0.5 < is_right.mean() < 0.98
        # Confidence is the share of right answers.
        assert best.values.mean() == pytest.approx(float(is_right.mean()), abs=0.03)


def test_what_is_told_of_clear_words_is_their_caption():
    reader, eeg, concept, slots, in_context = reader_of_words(0.1)
    told = reader.context(eeg, concept, is_locked=True) - reader.contexts.data[concept]
    np.testing.assert_allclose(told.numpy(), said_in(slots, in_context), atol=0.02)


def test_words_are_told_of_locked_epochs_alone():
    reader, eeg, concept, *_ = reader_of_words(1.0)
    plain = reader.context(eeg, concept, is_locked=False)
    torch.testing.assert_close(plain, reader.contexts.data[concept])


def test_what_is_told_is_decided():
    """The likelier word is told more than it is likely."""
    reader, eeg, concept, *_ = reader_of_words(3.0)
    decided = reader.context(eeg, concept, is_locked=True) - reader.contexts.data[concept]
    reader.register_to_config(decided=1.0)
    half = reader.context(eeg, concept, is_locked=True) - reader.contexts.data[concept]
    assert decided.norm(dim=(1, 2)).mean() > 1.3 * half.norm(dim=(1, 2)).mean()


def near(scores):
    """Distances of epochs that are surely EEG."""
    return torch.zeros(len(scores))


def weighed(n=4000, accuracy=0.6):
    """A reader that is right for so many epochs, and an encoder that guesses."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(3, (n,), generator=generator)
    is_right = torch.rand(n, generator=generator) < accuracy
    said = torch.where(is_right, label, (label + 1) % 3)
    scores = 5.0 * torch.nn.functional.one_hot(said, 3).float() + 20
    guesses = torch.randn(n, 3, generator=generator).softmax(1)
    blank = torch.randn(n, 3, generator=generator)
    odds = torch.randn(n, generator=generator)
    return Weighed(scores, guesses, label, odds, blank, odds)


def test_confidence_becomes_the_share_of_right_answers():
    reader, w = small_reader(), weighed()
    set_weights(reader, 0, w)
    reading = reader.read(w.scores, near(w.scores), w.encoder, w.odds, is_locked=True)
    best = reading.probabilities.max(1)
    share = (best.indices == w.label).float().mean()
    assert best.values.mean() == pytest.approx(float(share), abs=0.02)
    assert reader.weights[0, 1] < 0.1 * reader.weights[0, 0] + 0.05


def test_one_in_ten_blank_windows_is_answered():
    reader, w = small_reader(), weighed()
    set_weights(reader, 1, w)
    seen = reader.read(w.scores, near(w.scores), w.encoder, w.odds, is_locked=False).is_seen
    blank = reader.read(
        w.blank_scores, near(w.blank_scores), w.encoder, w.blank_odds, is_locked=False
    ).is_seen
    assert blank.float().mean() == pytest.approx(0.1, abs=0.01)
    assert seen.float().mean() > 0.99


def reading_pipeline(**weights):
    """A tiny pipeline whose reader names what the first channel's steps say."""
    reader = TemplateReader(
        n_lags=1, rank=4, n_context=TINY.context, cross_attention_dim=TINY.cross
    )
    reader.contexts.data = torch.randn(N_CONCEPTS, TINY.context, TINY.cross)
    reader.locked.weight.data.zero_()
    reader.locked.bias.data = -1000.0 * (torch.arange(N_CONCEPTS) != 7)
    for name, value in weights.items():
        getattr(reader, name).data = value
    return EEGToImagePipeline(**tiny_parts(), reader=reader)


def test_what_the_reader_names_is_what_is_painted_and_told():
    pipeline = reading_pipeline()
    encoded = pipeline.encode(torch.randn(3, 32, 256))
    assert encoded.probabilities.argmax(1).tolist() == [7, 7, 7]
    torch.testing.assert_close(encoded.context, pipeline.reader.contexts.data[[7, 7, 7]])
    torch.testing.assert_close(
        encoded.time_embedding, pipeline.conditioner.time_embedding(encoded.context)
    )
    cosine = torch.nn.functional.cosine_similarity
    prototype = pipeline.concepts.prototypes[[7]]
    pipeline.reader = None
    before = pipeline.encode(torch.randn(3, 32, 256)).clip_embeds
    assert (cosine(encoded.clip_embeds, prototype) > cosine(before, prototype)).all()


def test_an_encoder_that_weighs_all_is_what_is_named():
    pipeline = reading_pipeline(weights=torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    eeg = torch.randn(3, 32, 256)
    encoded = pipeline.encode(eeg)
    pipeline.reader = None
    torch.testing.assert_close(encoded.probabilities, pipeline.encode(eeg).probabilities)


def test_a_bundle_keeps_its_reader(tmp_path):
    make_tiny_bundle(tmp_path)
    pipeline = reading_pipeline()
    pipeline.save_pretrained(tmp_path)
    eeg = torch.randn(1, 32, 256)
    again = load_bundle(tmp_path).encode(eeg, is_locked=False)
    for before, after in zip(pipeline.encode(eeg, is_locked=False), again, strict=True):
        torch.testing.assert_close(before, after)


def test_odds_are_those_of_the_mean_likelihood():
    reader = small_reader()
    reader.seen.data = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    scores = torch.tensor([[0.1, -0.1, 0.2], [-3.0, -4.0, -3.0]])
    encoder = torch.full((2, 3), 1 / 3), torch.zeros(2)
    seen = reader.read(scores, near(scores), *encoder, True).is_seen
    odds = scores.logsumexp(1) - math.log(3)
    assert seen.tolist() == (odds > 0).tolist() == [True, False]


def test_what_is_no_eeg_is_not_answered():
    """White noise stands out where EEG is quiet, and would be called a strong response."""
    generator = torch.Generator().manual_seed(0)
    # Two electrodes that see nearly the same, as neighbours do.
    common = torch.randn(400, 1, 32, generator=generator).cumsum(2)
    eeg = common + 0.1 * torch.randn(400, 2, 32, generator=generator)
    features = features_of(means_of(eeg.numpy(), 8))
    reader = small_reader(rank=8)
    at_lags = np.random.default_rng(0).standard_normal((2, 3, 8))
    set_lags(reader, at_lags, np.cov(features.T) + 1e-4 * np.eye(8))
    reader.seen.data[:, 2] = 1.0
    set_farthest(reader, eeg)
    noise = eeg.std() * torch.randn(100, 2, 32, generator=generator)

    def share(epochs):
        n = len(epochs)
        encoder = torch.full((n, 3), 1 / 3), torch.zeros(n)
        scores = reader.scores(epochs, is_locked=False)
        return reader.read(scores, reader.distance(epochs), *encoder, False).is_seen.float().mean()

    assert share(eeg) == pytest.approx(0.99, abs=0.005)
    assert share(noise) < 0.1
