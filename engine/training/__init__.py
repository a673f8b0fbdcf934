"""Training: `loop` drives any method over any endpoint; `methods` has one readable file each; `schedule` is arithmetic.

Knows the Tinker primitives, never where they are answered.
"""
