"""The advisor: what a language model is shown of a market, when it is asked, and what is known of its memory."""
