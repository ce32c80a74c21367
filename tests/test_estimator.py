"""The estimator keeps what scikit-learn asks of an outlier detector, and its own word on images."""

from __future__ import annotations

import os

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from anomaly import ImageAnomalyDetector, Scorer
from anomaly.estimator import LOWEST
from data.synthetic import make

SMALL = {"space": "pixels", "size": 28}
ALL = bool(os.environ.get("ANOMALY_ALL_CHECKS"))


# These train, most of them several times: ten minutes, for CI and for who changes the estimator.
# One that trains once is left for every run.
TRAINS = """
    check_classifier_data_not_an_array check_dict_unchanged check_dont_overwrite_parameters
    check_dtype_object check_estimators_dtypes check_estimators_fit_returns_self
    check_estimators_nan_inf check_estimators_overwrite_params check_estimators_pickle
    check_f_contiguous_array_estimator check_fit2d_1feature check_fit2d_predict1d
    check_fit_check_is_fitted check_fit_idempotent check_fit_score_takes_y
    check_methods_sample_order_invariance check_n_features_in check_n_features_in_after_fitting
    check_outliers_fit_predict check_outliers_train check_pipeline_consistency
    check_positive_only_tag_during_fit check_readonly_memmap_input
""".split()


# blobs reach beyond those of the training, and are not images: that is said each time
@pytest.mark.filterwarnings("ignore:.*images were not judged:UserWarning")
@parametrize_with_checks([ImageAnomalyDetector(**SMALL)])
def test_it_is_an_estimator_of_scikit_learn(estimator, check):
    if not ALL and getattr(check, "func", check).__name__ in TRAINS:
        pytest.skip("trains several detectors: set ANOMALY_ALL_CHECKS=1")
    check(estimator)


@pytest.mark.filterwarnings("ignore:.*images were not judged:UserWarning")
def test_digits_other_than_zero_are_told_from_zeros():
    images, classes = load_digits(return_X_y=True)
    zeros = ImageAnomalyDetector(**SMALL, false_alarm_rate=0.05, random_state=0)
    zeros.fit(images[:1200][classes[:1200] == 0])
    assert zeros.image_shape_ == (8, 8)
    test, other = images[1200:1500], classes[1200:1500] != 0
    decision, predicted = zeros.decision_function(test), zeros.predict(test)
    assert roc_auc_score(~other, decision) > 0.98
    assert np.array_equal(predicted == 1, decision >= 0)
    assert (predicted[other] == -1).mean() > 0.8 and (predicted[~other] == 1).mean() > 0.8
    # values beyond those of the training are not judged, and never good
    beyond = test[~other][:3].copy()
    beyond[1, 20] = 1000
    with pytest.warns(UserWarning, match="^1 of 3 images were not judged, .* 1000 found"):
        scores = zeros.score_samples(beyond)
    assert scores[1] == LOWEST and (scores[[0, 2]] > LOWEST).all()


def test_pixels_of_colour_score_as_their_images(tmp_path):
    discs = [make("disc", seed, 32)[0] for seed in range(45)]
    vectors = np.stack([disc.ravel() for disc in discs])
    model = ImageAnomalyDetector(**SMALL, image_shape=(32, 32, 3), random_state=0)
    model.fit(vectors[:40])
    scorer = Scorer(model.detector_.save(tmp_path / "discs.onnx"))
    expected = [scorer.score(disc) for disc in discs[40:]]
    assert {result.status for result in expected} == {"ok"}
    assert model.score_samples(vectors[40:]).tolist() == [-result.score for result in expected]
    assert model.score_samples(vectors[40:].astype(float)).tolist() == [-r.score for r in expected]
    assert model.predict(vectors[40:]).tolist() == [-1 if r.is_anomaly else 1 for r in expected]
    with pytest.raises(ValueError, match="values other than whole numbers"):
        model.predict(vectors[40:] + 0.5)
    for shape, message in (((31, 33), "of 3072 values expected"), ((32, 32, 3), "uint8 expected")):
        with pytest.raises(ValueError, match=message):
            ImageAnomalyDetector(**SMALL, image_shape=shape).fit(vectors.astype(float))
