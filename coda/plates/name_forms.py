"""Names of files in another Unicode normal form: one rule wherever names are compared.

One letter may be written as one sign (NFC, most programs) or as a letter and an accent (NFD, many programs on macOS).
Both look alike, and to a disk or an object store they are two names. A name means the file that is called exactly so;
else the only file whose name is the same in NFC, unless another name means that one exactly. It is opened by the name
that it is stored under. Where several files differ in nothing else, only exact names mean one of them.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping


def composed(name: str) -> str:
    """Return a name in NFC, by which names are compared."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def by_form(names: Iterable[str]) -> Mapping[str, list[str]]:
    """Return names by what they are in NFC."""
    forms: dict[str, list[str]] = defaultdict(list)
    for name in names:
        forms[composed(name)].append(name)
    return forms


def matched(wanted: Iterable[str], stored: Iterable[str]) -> dict[str, str]:
    """Return wanted name -> stored name, for the wanted names that mean a stored one."""
    asked, there = set(wanted), set(stored)
    found = {name: name for name in asked & there}
    lacking = [name for name in asked - there if not name.isascii()]
    if lacking:
        forms, rivals = by_form(there), by_form(lacking)
        for name in lacking:
            alike = forms.get(composed(name), [])
            if len(alike) == 1 and alike[0] not in asked and len(rivals[composed(name)]) == 1:
                found[name] = alike[0]
    return found


def twins(names: Iterable[str]) -> list[str]:
    """Return the first names that differ in nothing but their normal form; empty where there are none."""
    return next((sorted(alike) for alike in by_form(set(names)).values() if len(alike) > 1), [])


def spelled(name: str) -> str:
    """Return a name with its normal form, for messages: names that look alike are distinguished by nothing else."""
    forms = [form for form in ("NFC", "NFD") if unicodedata.normalize(form, name) == name]
    return f"'{name}' ({' and '.join(forms) or 'neither NFC nor NFD'})"


def absent(name: str, forms: Mapping[str, list[str]]) -> str:
    """Return the name of a file that is not there, for messages; with those that look like it, where there are any."""
    alike = [] if name.isascii() else sorted(set(forms.get(composed(name), [])) - {name})
    return f"{spelled(name)}, where there is {' and '.join(map(spelled, alike))}" if alike else name


class AlikeNamesError(FileNotFoundError):
    """There is no file of this very name, and several that differ from it in their normal form alone."""

    def __init__(self, path: str, alike: Iterable[str]) -> None:
        """Keep the path and describe what is there."""
        super().__init__(path)
        self.reason = (
            f"is in the manifest as {spelled(path)}, and was delivered under several names that differ from it only in "
            f"their Unicode normal form: {', '.join(map(spelled, sorted(alike)))}"
        )


def only(path: str, alike: Iterable[str]) -> str:
    """Return the only name that is there.

    Raises:
        FileNotFoundError: There is none; an `AlikeNamesError` where there are several.
    """
    names = list(alike)
    if len(names) > 1:
        raise AlikeNamesError(path, names)
    if not names:
        raise FileNotFoundError(path)
    return names[0]


def plain_folder(path: str) -> str:
    """Return the folders of a path that are the same in every form, from its beginning: '' or 'a/b'."""
    folders = path.split("/")[:-1]
    plain = next((number for number, part in enumerate(folders) if not part.isascii()), len(folders))
    return "/".join(folders[:plain])
