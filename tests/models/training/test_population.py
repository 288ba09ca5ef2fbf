"""Responses of many subjects as a prior of a new one's."""

import numpy as np
import pytest

from models.errors import TrainingError
from models.training.lda import Windows, classifier
from models.training.personal import (
    Epochs,
    Method,
    balanced,
    choose,
    fit,
    folds,
    hold_out,
    methods,
)
from models.training.population import Population, Responses, fit_population, posterior

N_CONCEPTS, N_CHANNELS, N_LOCKED, N_LONG, WIDTH = 6, 5, 4, 6, 8


class Maker:
    """Subjects whose responses are the population's and, in three directions, their own."""

    def __init__(self, own=1.0, noise=1.0):
        rng = np.random.default_rng(0)
        self.mean = rng.standard_normal((N_CONCEPTS, N_CHANNELS, N_LONG))
        self.mean -= self.mean.mean(axis=0)
        self.directions = rng.standard_normal((3, N_CHANNELS, N_LONG))
        self.own, self.noise = own, noise

    def responses(self, seed):
        rng = np.random.default_rng([1, seed])
        strays = rng.standard_normal((N_CONCEPTS, 3))
        return self.mean + self.own * np.einsum("kr,rct->kct", strays, self.directions)

    def trials(self, seed, n_each, session=0):
        """Window means and labels."""
        rng = np.random.default_rng([2, seed, session])
        label = rng.permutation(np.repeat(np.arange(N_CONCEPTS), n_each))
        shape = (len(label), N_CHANNELS, N_LONG)
        return self.responses(seed)[label] + self.noise * rng.standard_normal(shape), label

    def population(self, n_subjects=30, n_each=10):
        subjects = [self.trials(seed, n_each) for seed in range(n_subjects)]
        return fit_population(subjects, N_CONCEPTS, N_LOCKED, WIDTH)


def centred(values):
    return values - values.mean(axis=2, keepdims=True)


def locked_noise(population):
    n = N_CHANNELS * N_LOCKED
    return population.noise.reshape(n, n) + 0.01 * np.eye(n)


def test_a_population_knows_mean_spread_and_noise():
    maker = Maker()
    population = maker.population()
    assert np.corrcoef(population.mean.ravel(), maker.mean.ravel())[0, 1] > 0.9
    n = N_CHANNELS * N_LONG
    root = population.own.reshape(n, -1)
    directions = maker.directions.reshape(3, -1)
    expected = directions.T @ directions
    assert np.linalg.norm(root @ root.T - expected) < 0.35 * np.linalg.norm(expected)
    diagonal = np.einsum("itit->it", population.noise)
    # White noise, less each channel's mean.
    assert diagonal == pytest.approx((1 - 1 / N_LOCKED) * np.ones_like(diagonal), rel=0.15)


def test_more_epochs_bring_a_subject_from_the_population_to_themselves():
    maker = Maker()
    population = maker.population()
    truth = maker.responses(99)
    errors = []
    for n_each in (0, 2, 20, 200):
        trials, label = maker.trials(99, n_each)
        own = Responses.of(trials[:, :, :N_LOCKED], label, N_CONCEPTS)
        known = posterior(population, own, locked_noise(population))
        rest = centred(known.mean[:, :, :N_LOCKED] - truth[:, :, :N_LOCKED])
        errors.append(float((rest**2).mean()))
        if n_each == 20:
            # Windows that were not recorded follow from those that were.
            later = known.mean[:, :, N_LOCKED:] - truth[:, :, N_LOCKED:]
            of_population = population.mean[:, :, N_LOCKED:] - truth[:, :, N_LOCKED:]
            assert (later**2).mean() < 0.5 * (of_population**2).mean()
            plain = centred(own.mean - truth[:, :, :N_LOCKED])
            assert errors[-1] < (plain**2).mean()
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]


def test_what_is_not_known_grows_less():
    population = Maker().population()
    spreads = []
    for n in (0, 5, 50):
        own = Responses(np.zeros((N_CONCEPTS, N_CHANNELS, N_LOCKED)), np.full(N_CONCEPTS, n))
        root = posterior(population, own, locked_noise(population)).root
        spreads.append(float((root**2).sum()))
    assert spreads[0] == pytest.approx(float((population.own**2).sum()) * N_CONCEPTS)
    assert spreads == sorted(spreads, reverse=True)


def test_other_electrodes_see_a_population_as_they_see_its_epochs():
    maker = Maker()
    matrix = np.random.default_rng(5).standard_normal((N_CHANNELS, N_CHANNELS))
    subjects = [maker.trials(seed, 10) for seed in range(12)]
    seen = fit_population(subjects, N_CONCEPTS, N_LOCKED, WIDTH).seen_by(matrix)
    own = [(np.einsum("ij,njt->nit", matrix, trials), label) for trials, label in subjects]
    again = fit_population(own, N_CONCEPTS, N_LOCKED, WIDTH)
    np.testing.assert_allclose(seen.mean, again.mean, atol=1e-9)
    np.testing.assert_allclose(seen.noise, again.noise, atol=1e-9)


def test_a_population_is_kept_and_a_damaged_one_told(tmp_path):
    population = Maker().population(12)
    path = tmp_path / "population.safetensors"
    population.save(path)
    again = Population.load(path)
    assert again.width == WIDTH
    np.testing.assert_allclose(again.own, population.own, atol=2e-2)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match="does not hold a population"):
        Population.load(path)


def person(maker, n_each=4, seed=99, n_runs=2):
    """Epochs whose window means are a maker's."""
    trials, label = maker.trials(seed, n_each)
    run = np.arange(len(label)) * n_runs // len(label)
    return Epochs(np.repeat(trials[:, :, :N_LOCKED], WIDTH, axis=2).astype(np.float32), label, run)


def test_the_prior_helps_where_epochs_are_few():
    maker = Maker(noise=2.0)
    population = maker.population(40, 20)
    epochs, fold = person(maker), np.tile([0, 1], 12)
    found = {}
    for name, method in {
        "prior": Method(1.0),
        "alone": Method(windows=Windows(0, 32, 8)),
    }.items():
        said = hold_out(epochs, N_CONCEPTS, [method], population, fold).said
        found[name] = balanced(said == epochs.label, epochs.label)
    assert found["prior"] > found["alone"] + 0.1


def test_a_prior_of_somebody_else_is_not_chosen():
    """Where a population differs less than this person does, their epochs speak for themselves."""
    population = Maker(own=0.0).population()
    other = Maker()
    other.mean = np.roll(other.mean, 2, axis=0)
    epochs = person(other, n_each=10)
    candidates = methods(N_LOCKED * WIDTH, 0, 250.0, population)
    best = choose(epochs, N_CONCEPTS, candidates, population, folds(epochs.run))
    assert best.share is None


def test_linear_discriminants_are_those_of_lda():
    windows = Windows(8, 32, 8, 8)
    epochs = person(Maker(), n_each=300)
    model = fit(Method(windows=windows), epochs, N_CONCEPTS, None)
    lda = classifier().fit(windows(epochs.eeg), epochs.label)
    ours, theirs = model.scores(epochs.eeg), lda.decision_function(windows(epochs.eeg))
    rest = ours - theirs
    rest -= rest.mean(axis=1, keepdims=True)
    assert rest.std() < 0.1 * theirs.std()


def test_runs_are_held_out_whole():
    fold = folds(np.repeat([3, 1, 7], 5))
    assert [len(set(fold[i : i + 5])) for i in (0, 5, 10)] == [1, 1, 1]
    assert len(set(fold)) == 3
    assert len(set(folds(np.repeat(np.arange(12), 4)))) == 6
    assert len(set(folds(np.zeros(20, int)))) == 5
