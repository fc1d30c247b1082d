"""Applications that are rewound and branched: ``python -m examples`` runs them."""
