"""Measure what the documents promise, from outside, so that a reader can measure it again.

Like chaos, whose lab and instruments it uses, nothing here imports hanat.
"""
