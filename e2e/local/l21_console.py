"""Group 21: the ledger's web console in headless Chromium: by keyboard alone, without scripts, light and dark, held to axe-core, and in front of records that an agent wrote to get at whoever looks.

Screenshots are kept in the folder `console` of CHAPERONE_ARTEFACTS (default: `artefacts` in CHAPERONE_CACHE)."""

import statistics

from .console_stage import ARTEFACTS, HOSTILE, browser, faults_of_access, ledger, log_in, picture, requests_of, selenium, wait
from .stage import test


def pages(running_ledger):
    """Each kind of page."""
    record = f"/console/records/{running_ledger.stream.name}"
    return {
        "sessions": "/console/sessions?namespace=agents",
        "session": "/console/session?id=7f3c1a9e-run&namespace=agents&kind=agent",
        "search": "/console/records?namespace=agents&decision=Deny",
        "record": f"{record}/3?namespace=agents",
        "denied": f"{record}/5?namespace=agents",
        "hostile": f"{record}/14?namespace=agents",
        "deleted": f"{record}/15?namespace=agents",
        "live": "/console/live?namespace=agents",
        "gaps": "/console/gaps?namespace=agents",
        "impact": "/console/impact?namespace=agents",
        "forbidden": "/console/sessions",
        "missing": f"{record}/999?namespace=agents",
    }


@test
def the_console_is_used_by_keyboard_and_without_scripts():
    By, Keys = selenium()
    with ledger() as running_ledger, browser(scripts=False) as running:
        log_in(running, running_ledger.url, then="/console/sessions?namespace=agents")
        assert running.current_url.endswith("/console/sessions?namespace=agents"), running.current_url
        running.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
        assert running.switch_to.active_element.text == "Skip to content"
        running.switch_to.active_element.send_keys(Keys.ENTER)
        running.find_element(By.LINK_TEXT, "7f3c1a9e-run").send_keys(Keys.ENTER)
        headings = [each.text for each in running.find_elements(By.TAG_NAME, "h2")]
        assert [heading.split("+")[0].strip() for heading in headings] == ["Before the first turn", "Turn 1", "Turn 2", "Turn 3"], headings
        denied = running.find_elements(By.PARTIAL_LINK_TEXT, "DELETE https://api.example.com/users/2")
        denied[0].send_keys(Keys.ENTER)
        text = running.find_element(By.TAG_NAME, "main").text
        for needle in ("Denied", "agents/coding", "no-delete", 'http.method == "DELETE" && !http.path.startsWith("/drafts/")', "The policy was changed since.", "In force was generation 3; this is generation 4."):
            assert needle in text, (needle, text)
        running.get(f"{running_ledger.url}/console/records/{running_ledger.stream.name}/3?namespace=agents")
        boxes = [running.find_element(By.ID, name).rect for name in ("request", "response")]
        assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"], f"not side by side: {boxes}"
        masks = [mark.text for mark in running.find_elements(By.CSS_SELECTOR, "pre mark.mask, td mark.mask")]
        assert {"[masked:email]", "[hash:creditCard:00ff12ab]", "tok_iban_abcdefgh234", "[masked:credential]"} <= set(masks), masks
        # A page after the other.
        running.get(f"{running_ledger.url}/console/records?namespace=agents&limit=6&order=asc")
        seen = []
        while True:
            seen += [link.get_attribute("href") for link in running.find_elements(By.CSS_SELECTOR, "tbody th a")]
            following = running.find_elements(By.LINK_TEXT, "Next page")
            if not following:
                break
            following[0].send_keys(Keys.ENTER)
        assert len(seen) == len(set(seen)) >= len(running_ledger.lines), len(seen)
        running.find_element(By.CSS_SELECTOR, ".logout button").send_keys(Keys.ENTER)
        wait(lambda: "/console/login" in running.current_url, "logging out leads to the login")
        running.get(f"{running_ledger.url}/console/sessions?namespace=agents")
        assert "/console/login" in running.current_url


@test
def every_page_of_the_console_is_accessible_in_light_and_in_dark():
    with ledger() as running_ledger:
        for scheme in ("light", "dark"):
            with browser(dark=scheme == "dark") as running:
                running.get(f"{running_ledger.url}/console/login")
                assert faults_of_access(running) == []
                picture(running, f"login-{scheme}")
                # That it would tell.
                running.execute_script("document.querySelector('label').remove(); document.querySelector('h1').style.color = '#888'; document.querySelector('h1').style.background = '#999'")
                found = {fault[1] for fault in faults_of_access(running)}
                assert {"label", "color-contrast"} <= found, found
                log_in(running, running_ledger.url, then="/console/sessions?namespace=agents")
                paper = []
                for name, path in pages(running_ledger).items():
                    running.get(running_ledger.url + path)
                    running.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
                    found = faults_of_access(running)
                    assert found == [], f"{name}, {scheme}: {found}"
                    picture(running, f"{name}-{scheme}")
                    paper.append(running.execute_script("return getComputedStyle(document.documentElement).backgroundColor"))
                assert set(paper) == {"rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)"}, paper
                # As wide as a telephone: nothing is cut off at the side.
                running.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True})
                for name in ("record", "session"):
                    running.get(running_ledger.url + pages(running_ledger)[name])
                    width = running.execute_script("return document.documentElement.scrollWidth")
                    assert width <= 390, f"{name}: {width} pixels wide"
                    picture(running, f"{name}-{scheme}-narrow")
    assert len(list(ARTEFACTS.glob("*.png"))) >= 22


@test
def what_an_agent_wrote_runs_nowhere_and_asks_nobody():
    By, _ = selenium()
    with ledger() as running_ledger, browser() as running:
        log_in(running, running_ledger.url, then="/console/sessions?namespace=agents")
        for name, path in pages(running_ledger).items():
            requests_of(running)
            running.get(running_ledger.url + path)
            assert running.execute_script("return window.owned") is None, name
            others = [url for url in requests_of(running) if not url.startswith((running_ledger.url + "/console/", "data:"))]
            assert others == [], f"{name}: {others}"
            said = [entry["message"] for entry in running.get_log("browser") if "Content Security Policy" in entry["message"]]
            assert said == [], f"{name}: {said}"
            links = [link.get_attribute("href") for link in running.find_elements(By.TAG_NAME, "a")]
            assert all(link.startswith(running_ledger.url + "/console/") or "#main" in link for link in links), f"{name}: {links}"
        running.get(running_ledger.url + pages(running_ledger)["hostile"])
        shown = running.find_element(By.CSS_SELECTOR, "#request ~ pre, section[aria-labelledby=request] pre").text
        assert shown == HOSTILE.replace("\u202e", "\\u{202e}").replace("\U000e0041", "\\u{e0041}"), shown
        assert running.find_elements(By.CSS_SELECTOR, "main img, main svg, main script, [onload], [onerror], [onfocus], [autofocus]") == []
        # A script that got into a page all the same would not run.
        running.execute_script("const s = document.createElement('script'); s.textContent = 'window.owned = 6'; document.body.append(s)")
        assert running.execute_script("return window.owned") is None


@test
def a_record_is_proved_in_the_browser_and_what_does_not_fit_is_told():
    By, Keys = selenium()
    with ledger() as running_ledger, browser() as running:
        log_in(running, running_ledger.url, then="/console/sessions?namespace=agents")
        path = running_ledger.url + pages(running_ledger)["record"]
        deleted = running_ledger.url + pages(running_ledger)["deleted"]

        def verify(vkey, change="", path=path):
            running.get(path)
            running.execute_script(change)
            key = running.find_element(By.ID, "vkey")
            key.clear()
            key.send_keys(vkey + Keys.ENTER)
            verdict = running.find_element(By.ID, "verify-verdict")
            wait(lambda: verdict.text not in ("", "Checking…"), "no verdict")
            steps = [step.text for step in running.find_elements(By.CSS_SELECTOR, "#verify-steps li")]
            return verdict.text, steps

        # A checkpoint comes a second after the records.
        deadline = 20
        while "Not checked" in verify("")[0]:
            deadline -= 1
            assert deadline, verify("")
        verdict, steps = verify("")
        assert verdict.startswith("Proved in part") and [step.split(":")[0] for step in steps] == ["proved", "proved", "not checked"], (verdict, steps)
        verdict, steps = verify(running_ledger.vkey)
        assert verdict.startswith("Proved: this record, byte for byte"), (verdict, steps)
        assert [step.split(":")[0] for step in steps] == ["proved"] * 3, steps
        assert "without its bodies, whose SHA-256 is among them and is right" in steps[0], steps
        assert faults_of_access(running) == []
        picture(running, "proved-light")
        # A record whose text was deleted is proved as before, and the page says that it had one.
        verdict, steps = verify(running_ledger.vkey, path=deleted)
        assert verdict.startswith("Proved: this record") and "its bodies were deleted" in steps[0], (verdict, steps)
        assert "Content deleted." in running.find_element(By.CSS_SELECTOR, "section[aria-labelledby=request]").text
        running.get(path)
        assert running.find_element(By.ID, "vkey").get_attribute("value") == running_ledger.vkey, "the key stays in the browser"
        # Another record's bytes under this number; another number; another log's key.
        other = "document.getElementById('verify').dataset.raw = document.getElementById('verify').dataset.raw.replace('/3/raw', '/4/raw')"
        for vkey, change in ((running_ledger.vkey, other), (running_ledger.vkey, "document.getElementById('verify').dataset.seq = '4'"), ("other+00000000+AQ==", "")):
            verdict, steps = verify(vkey, change)
            assert verdict.startswith("Not proved") and any(step.startswith("NOT TRUE") for step in steps), (verdict, steps)
        picture(running, "not-proved-light")


@test
def new_records_show_while_one_looks():
    By, Keys = selenium()
    with ledger() as running_ledger, browser() as running:
        log_in(running, running_ledger.url, then="/console/live?namespace=agents&decision=Deny")

        def rows():
            return [row.text for row in running.find_elements(By.CSS_SELECTOR, "#live tbody tr")]

        before = rows()
        assert len(before) == 3 and all("deny" in row for row in before), before
        wait(lambda: running.find_element(By.ID, "live-status").text == "Waiting for new records.", "the script does not run")
        denied = {"action": "Deny", "policy": "agents/coding", "rule": "no-delete", "reason": "rule"}
        running_ledger.post(running_ledger.stream, [running_ledger.stream.http("DELETE", f"https://live.example.com/1?{HOSTILE}", 403, denied), running_ledger.stream.http("GET", "https://live.example.com/2")])
        wait(lambda: len(rows()) == 4, f"no new row: {rows()}")
        assert "live.example.com/1" in rows()[0] and rows()[1:] == before, rows()
        assert running.find_element(By.ID, "live-status").text.startswith("1 new at ")
        assert running.execute_script("return window.owned") is None
        assert faults_of_access(running) == []
        running.find_element(By.ID, "live-pause").send_keys(Keys.ENTER)
        assert running.find_element(By.ID, "live-pause").get_attribute("aria-pressed") == "true"


@test
def pages_of_the_console_come_at_once():
    times = {}
    with ledger() as running_ledger, browser() as running:
        log_in(running, running_ledger.url, then="/console/sessions?namespace=agents")
        for name in ("sessions", "session", "search", "record"):
            for _ in range(5):
                running.get(running_ledger.url + pages(running_ledger)[name])
                took = running.execute_script("const t = performance.getEntriesByType('navigation')[0]; return [t.responseEnd - t.requestStart, t.domContentLoadedEventEnd - t.requestStart]")
                times.setdefault(name, []).append(took)
    for name, taken in times.items():
        answer, ready = (statistics.median(column) for column in zip(*taken))
        print(f"      {name}: {answer:.0f} ms for the answer, {ready:.0f} ms until it is there", flush=True)
        # A debug build on a busy machine: only what is broken takes so long.
        assert ready < 10000, f"{name}: {ready} ms"
