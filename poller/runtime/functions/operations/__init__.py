"""Operations on the asynchronous calls of a function: who carries them out, and how."""
