"""Batches: many inputs to one result set, on one machine or on several.

Listed lazily (`listing`), kept account of by the driver alone (`ledger`), analysed by whatever
`executor` is there, and written in parts (`results`).
"""
