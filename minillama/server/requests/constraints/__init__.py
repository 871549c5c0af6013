"""Fields that bind an answer: grammars, tool calls, budgets of thoughts."""
