"""Papers of a piece: labels, a watermark, a signature, a ledger; and who reads them."""
