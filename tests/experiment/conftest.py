"""The data sets and configs of the tests of training."""

from training.conftest import N_TEST, N, _no_user_data, config, digits, small

__all__ = ["N_TEST", "N", "_no_user_data", "config", "digits", "small"]
