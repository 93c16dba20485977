# SPDX-License-Identifier: GPL-2.0-or-later
"""What is worth telling: one finding a file. A rule reads the model and yields evidence."""
