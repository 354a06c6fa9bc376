"""A study: profiles, the plan, the engine, and the strict execution of notebooks."""
