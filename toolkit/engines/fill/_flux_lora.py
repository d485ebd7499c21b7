class Loras:
    def __init__(self, pipe, name):
        self._pipe = pipe

    def use(self, wanted):
        return ()
