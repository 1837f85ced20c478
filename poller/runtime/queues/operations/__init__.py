"""Operations on a queue mapping: how they reach its tasks, how retries and skips are carried out, and the redrive of dead letters."""
