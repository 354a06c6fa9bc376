"""Figures: functions of an axes and a frame."""
