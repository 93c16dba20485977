# SPDX-License-Identifier: GPL-2.0-or-later
"""The state that batches describe: buffers, attachments, mappings, devices, contexts."""
