"""Operations that take long: one worker claims each, and shows how far it is. Another one goes on when it dies."""
