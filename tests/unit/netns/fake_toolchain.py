"""A compiler, a make and a kernel source that take no time, for tests of building kernels."""

import os
import tarfile
from pathlib import Path

OBJECTS = 5
# As make is called here: make -C TREE O=OBJECTS ARCH=um [-jN] TARGET. What it compiles, it notes;
# "behaviour" beside it may define what happens before the third object.
MAKE = f"""#!/bin/sh
here=$(dirname "$0")
objects=${{3#O=}}
for target; do :; done
before_third() {{ :; }}
after_configuration() {{ :; }}
[ -e "$here/behaviour" ] && . "$here/behaviour"
case $target in
defconfig) printf 'CONFIG_NET=y\\nCONFIG_HZ=100\\n# CONFIG_VETH is not set\\n' \\
    >"$objects/.config" ;;
olddefconfig) after_configuration ;;
linux)
    for number in $(seq {OBJECTS}); do
        [ -e "$objects/$number.o" ] && continue
        [ "$number" = 3 ] && before_third
        echo "  CC      net/$number.o"
        echo "$number" >>"$here/compiled"
        touch "$objects/$number.o"
    done
    mkdir -p "$objects/include/config"
    echo 6.12.9 >"$objects/include/config/kernel.release"
    printf '#!/bin/sh\\n' >"$objects/linux"
    chmod +x "$objects/linux"
    ;;
esac
"""
GCC = """#!/bin/sh
[ -e "$(dirname "$0")/no-headers" ] && { echo "stdlib.h: fatal error: not found"; exit 1; }
while [ "$1" != -o ]; do shift; done
echo compiled >"$2"
"""
NOTHING = "#!/bin/sh\n"


class Toolchain:
    """The programs in ``bin``, an ``archive`` and a ``tree`` to build from."""

    def __init__(self, place: Path) -> None:
        self.bin = place / "bin"
        self.bin.mkdir()
        texts = {"make": MAKE, "gcc": GCC}
        for name in ("make", "gcc", "ld", "flex", "bison", "bc", "xz"):
            (self.bin / name).write_text(texts.get(name, NOTHING))
            (self.bin / name).chmod(0o755)
        self.tree = place / "linux-6.12"
        (self.tree / "arch" / "um").mkdir(parents=True)
        (self.tree / "arch" / "um" / "Makefile").write_text("# um\n")
        self.archive = place / "linux-source-6.12.tar"
        with tarfile.open(self.archive, "w") as archive:
            archive.add(self.tree, "linux-source-6.12")

    @property
    def path(self) -> str:
        """What PATH has to be."""
        return f"{self.bin}:{os.defpath}"

    def behave(self, text: str) -> None:
        """Let make do something else, in the words of the shell; an empty text: as usual."""
        (self.bin / "behaviour").write_text(text)

    def compiled(self) -> list[str]:
        """Return what was compiled so far, in order."""
        return (self.bin / "compiled").read_text().split()
