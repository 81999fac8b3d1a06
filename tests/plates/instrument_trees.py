"""Small folders laid out as real instruments lay them out, with the files that describe them."""

import numpy as np
from batches import field, tiff

from coda.contracts import STAINS
from coda.plates.readers.layouts import find_plates
from coda.plates.readers.read_options import ReadOptions
from coda.plates.tree import LocalTree


def found(layout, folder, **options):
    """Return the plates that a layout finds in a folder."""
    if "plates" in options:
        options["plates"] = frozenset(options["plates"])
    return find_plates(layout, LocalTree(folder), ReadOptions(**options))


def put(folder, files):
    """Write files: {path: bytes or text}."""
    for path, data in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def pictures(seed, shape=(64, 80)):
    """Return the TIFF of each stain of one field."""
    return {stain: tiff(image, compression="lzw") for stain, image in field(seed, shape).items()}


def grey(value, shape=(32, 32)):
    """Return an image that is told from others by its first pixel."""
    image = np.full(shape, 7, np.uint16)
    image[0, 0] = value
    return image


HARMONY = {
    "DNA": (5, "HOECHST 33342"), "ER": (4, "Alexa 488"), "RNA": (3, "Alexa 488 Em 650"), "AGP": (2, "Alexa 568"),
    "Mito": (1, "Alexa 647"),
}  # fmt: skip


def harmony_image(number, name, *, site=1, plane=1, time=1, generation=7, row=1, column=1, state="Ok", url=None):
    """Return one `Image` of an index; up to V5 it carries the channel's settings itself."""
    url = url or f"r{row:02d}c{column:02d}f{site:02d}p{plane:02d}-ch{number}sk{time}fk1fl1.tiff"
    settings = harmony_settings(name) if generation <= 5 else f"<SequenceID>1</SequenceID><GroupID>{number}</GroupID>"
    return (
        f"<Image Version='1'><id>{row:02d}{column:02d}K1F{site}P{plane}R{number}</id><State>{state}</State>"
        f"<URL>{url}</URL><Row>{row}</Row><Col>{column}</Col><FieldID>{site}</FieldID><PlaneID>{plane}</PlaneID>"
        f"<TimepointID>{time}</TimepointID><ChannelID>{number}</ChannelID><FlimID>1</FlimID>{settings}</Image>"
    )


def harmony_settings(name, pixel=5.98e-07, kind="NonConfocal", largest=65536):
    return (
        f"<ChannelName>{name}</ChannelName><ImageType>Signal</ImageType><AcquisitionType>{kind}</AcquisitionType>"
        f"<ImageResolutionX Unit='m'>{pixel}</ImageResolutionX><ImageSizeX>1080</ImageSizeX>"
        f"<MaxIntensity>{largest}</MaxIntensity><ObjectiveMagnification Unit=''>20</ObjectiveMagnification>"
        f"<ObjectiveNA Unit=''>1</ObjectiveNA>"
    )


def harmony_index(images, *, channels=None, generation=7, plate="P1", rows=16, columns=24):
    """Return an index; since V6 the settings of channels (number -> XML) stand once, among the maps."""
    entries = "".join(f"<Entry ChannelID='{number}'>{xml}</Entry>" for number, xml in (channels or {}).items())
    profile = "<FlatfieldProfile>{Background: {Character: NonFlat}}</FlatfieldProfile>"
    flat = "".join(f"<Entry ChannelID='{number}'>{profile}</Entry>" for number in (channels or {}))
    space = f"43B2A954-E3C3-47E1-B392-6635266B0DD3/HarmonyV{generation}"
    return (
        f"\ufeff<?xml version='1.0' encoding='utf-8'?><EvaluationInputData Version='2' xmlns='{space}'><Plates><Plate>"
        f"<PlateID>{plate}</PlateID><Name>{plate}</Name><PlateRows>{rows}</PlateRows><PlateColumns>{columns}"
        f"</PlateColumns></Plate></Plates><Wells><Well><id>0101</id><Row>1</Row><Col>1</Col><Image id='0101K1F1P1R1'/>"
        f"</Well></Wells><Maps><Map>{flat}</Map><Map>{entries}</Map></Maps><Images>{''.join(images)}</Images>"
        f"</EvaluationInputData>"
    )


def harmony_plate(folder, *, wells=((1, 1), (1, 2)), sites=(1, 2), generation=7):
    """Write a whole measurement with pixels."""
    images, files = [], {}
    for number, (row, column) in enumerate(wells):
        for site in sites:
            shots = pictures(100 * number + site)
            for stain, (channel, name) in HARMONY.items():
                images.append(harmony_image(channel, name, site=site, generation=generation, row=row, column=column))
                files[f"Images/r{row:02d}c{column:02d}f{site:02d}p01-ch{channel}sk1fk1fl1.tiff"] = shots[stain]
    channels = {number: harmony_settings(name) for number, name in HARMONY.values()}
    files["Images/Index.xml"] = harmony_index(images, channels=channels, generation=generation)
    return put(folder, files)


BTS = "xmlns:bts='http://www.yokogawa.co.jp/BTS/BTSSchema/1.0'"
CV = {"DNA": 6, "ER": 4, "RNA": 3, "AGP": 2, "Mito": 5}


def cv_name(plate, well, *, channel, site=1, z=1, time=1, action=1):
    return f"{plate}_{well}_T{time:04d}F{site:03d}L01A{action:02d}Z{z:02d}C{channel:02d}.tif"


def cv_record(name, *, row=1, column=1, site=1, channel=1, z=1, time=1, kind="IMG", extra=""):
    numbers = f"bts:FieldIndex='{site}' bts:ZIndex='{z}' bts:Ch='{channel}' " if kind == "IMG" else ""
    return (
        f"<bts:MeasurementRecord bts:Type='{kind}' bts:Time='2021-06-14T09:00:00+01:00' bts:Column='{column}' "
        f"bts:Row='{row}' bts:TimePoint='{time}' {numbers}bts:TimelineIndex='1' bts:ActionIndex='1' bts:X='0' "
        f"bts:Y='0' {extra}>{name}</bts:MeasurementRecord>"
    )


def cv_index(records):
    head = f"<?xml version='1.0' encoding='utf-8'?><bts:MeasurementData {BTS} bts:Version='1.0'>"
    return f"{head}{''.join(records)}</bts:MeasurementData>"


def cv_detail(channels, *, pixel="0.65", setting="S.mes", rows=16, columns=24, plate="BAR1"):
    items = "".join(
        f"<bts:MeasurementChannel bts:Ch='{number}' bts:HorizontalPixelDimension='{pixel}' "
        f"bts:VerticalPixelDimension='{pixel}' bts:CameraNumber='1' bts:InputBitDepth='16' bts:InputLevel='65535'/>"
        for number in channels
    )
    return (
        f"<bts:MeasurementDetail {BTS} bts:MeasurementSettingFileName='{setting}' bts:RowCount='{rows}' "
        f"bts:ColumnCount='{columns}'><bts:MeasurementSamplePlate bts:Name='{plate}'/>{items}</bts:MeasurementDetail>"
    )


def cv_setting(targets):
    """`targets`: channel number -> (target, fluorophore, light source, kind)."""
    items = "".join(
        f"<bts:Channel bts:Ch='{number}' bts:Target='{target}' bts:Fluorophore='{dye}' bts:Objective='20x' "
        f"bts:Kind='{kind}'><bts:LightSourceName>{light}</bts:LightSourceName></bts:Channel>"
        for number, (target, dye, light, kind) in targets.items()
    )
    return f"<bts:MeasurementSetting {BTS}><bts:ChannelList>{items}</bts:ChannelList></bts:MeasurementSetting>"


def cv_plate(folder, *, plate="BAR1", wells=(("A01", 1, 1), ("A02", 1, 2)), sites=(1, 2)):
    """Write a whole measurement with pixels."""
    records, files = [], {}
    for number, (well, row, column) in enumerate(wells):
        for site in sites:
            shots = pictures(100 * number + site)
            for stain, channel in CV.items():
                name = cv_name(plate, well, channel=channel, site=site)
                records.append(cv_record(name, row=row, column=column, site=site, channel=channel))
                files[name] = shots[stain]
    files["MeasurementData.mlf"] = cv_index(records)
    files["MeasurementDetail.mrf"] = cv_detail(CV.values())
    return put(folder, files)


GUID = "3EFC51B3-6F57-4273-AFE3-BAA0781C8ACF"


def htd(*, waves=("DAPI", "FITC"), wells=("A01", "A02"), rows=8, columns=12, sites=2):
    """Return an HTD file."""
    lines = ['"HTSInfoFile", Version 1.0', '"Description", "a, ""quoted"" plate"', f'"XWells", {columns}']
    lines += [f'"YWells", {rows}']
    for row in range(rows):
        chosen = [f"{chr(65 + row)}{column + 1:02d}" in wells for column in range(columns)]
        lines.append(f'"WellsSelection{row + 1}", ' + ", ".join(str(item).upper() for item in chosen))
    lines += [f'"XSites", {sites}', '"YSites", 1', f'"NWavelengths", {len(waves)}']
    lines += [f'"WaveName{number}", "{name}"' for number, name in enumerate(waves, start=1)]
    return "\r\n".join([*lines, '"EndFile"', ""])


WAVES = {"DNA": "DAPI", "ER": "FITC", "RNA": "SYTO14", "AGP": "TexasRed", "Mito": "Cy5"}


def imagexpress_plate(folder, *, prefix="HTS", wells=("A01", "A02"), sites=(1, 2)):
    """Write a whole plate with pixels and thumbnails."""
    files = {f"{prefix}.HTD": htd(waves=tuple(WAVES.values()), wells=wells)}
    for number, well in enumerate(wells):
        for site in sites:
            shots = pictures(100 * number + site)
            for wave, stain in enumerate(STAINS, start=1):
                files[f"TimePoint_1/{prefix}_{well}_s{site}_w{wave}{GUID}.tif"] = shots[stain]
                files[f"TimePoint_1/{prefix}_{well}_s{site}_w{wave}_thumb{GUID}.tif"] = b"thumbnail"
    return put(folder, files)
