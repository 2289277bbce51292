"""Names of the language model's client, where the first seed document looks for them."""

from ploutos.advisor.config import LLMConfig as LLMConfig
from ploutos.llm.config import LLMProvider as LLMProvider
