"""Zero-shot solvers: restoration by a frozen prior and a known operator, nothing trained."""
