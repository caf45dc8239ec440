"""An operating system of which one call fails."""

import os
import signal


class Failing:
    """`os`, whose call number `at` fails: with an error, by half a write first, or by SIGKILL before or after it was made."""

    CALLS = ("open", "write", "fsync", "pread", "close", "replace", "unlink")

    def __init__(self, at, how):
        self.at, self.how, self.made = at, how, []

    def __getattr__(self, name):
        function = getattr(os, name)
        if name not in self.CALLS:
            return function

        def called(*arguments, **more):
            self.made.append(name)
            if len(self.made) != self.at:
                return function(*arguments, **more)
            if self.how == "kill before":
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "write" and self.how != "kill after":
                os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            if name == "close" or self.how == "kill after":
                function(*arguments, **more)
            if self.how == "kill after":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.how, os.strerror(self.how))

        return called
