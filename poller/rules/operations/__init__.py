"""Operations on what runs: which requests are accepted, how an operation goes on, and which pauses are in force. All of it is pure."""
