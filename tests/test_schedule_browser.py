"The explorer of schedules in a live JupyterLab"

OPEN = "from clsnb.all import ScheduleExplorer\nex = ScheduleExplorer({}, {})\nex"
STEP = "dict(policy='step', step=[3, 6], gamma=.137, warmup='linear', warmup_iters=37)"

def opened(nb, source, more):
    nb.run(OPEN.format(source, more), '.clsnb-policy select')
    nb.text('.clsnb-status', r'drawing 1\b')

def test_values_arrive_exactly_and_controls_draw(nb):
    opened(nb, STEP, 'epochs=9, base=.0123')
    nb.py("assert (ex.gamma, ex.base_lr, ex.warmup_iters) == (.137, .0123, 37) and not ex.errors")
    nb.slide('.clsnb-epochs', 20)
    nb.text('.clsnb-status', r'after 20 epochs.*drawing 2\b')
    nb.page.locator('.clsnb-policy select').select_option('OneCycle')
    nb.text('.clsnb-status', r'OneCycle: ')
    nb.text('.clsnb-line', r"policy='OneCycle'")
    nb.py("assert ex.plan.cfg.lr_config.max_lr == .0123 and not ex.errors")

def test_controls_without_effect_are_disabled_or_hidden(nb):
    opened(nb, STEP, 'epochs=9')
    page = nb.page
    assert page.locator('.clsnb-gamma input').is_enabled() and not page.locator('.clsnb-pct-start').is_visible()
    page.locator('.clsnb-policy select').select_option('OneCycle')
    nb.text('.clsnb-status', r'OneCycle: ')
    assert page.locator('.clsnb-gamma input').is_disabled() and page.locator('.clsnb-min-lr input').is_disabled()
    assert page.locator('.clsnb-pct-start input').is_enabled()

def test_a_momentum_schedule_has_its_own_canvas(nb):
    opened(nb, STEP, 'epochs=9')
    nb.page.locator('.clsnb-momentum-policy select').select_option('CosineAnnealing')
    nb.text('.clsnb-status', r'drawing 2\b')
    nb.text('.clsnb-line', r'momentum_config')
    nb.text('.clsnb-readout', r'momentum')
    nb.py("assert ex.views[1].layout.display is None and ex.views[1].lines and not ex.errors")

def test_mistakes_are_shown_and_go_away(nb):
    opened(nb, STEP, 'epochs=9')
    box = nb.page.locator('.clsnb-step input')
    box.fill('3; 6')
    box.press('Enter')
    nb.text('.clsnb-status', r'ConfigError.*no list of numbers')
    box.fill('4, 8')
    box.press('Enter')
    nb.text('.clsnb-status', r'step: starts')
    nb.py("assert ex.plan.cfg.lr_config.step == [4, 8]")

def test_keeping_and_comparing(nb):
    opened(nb, STEP, 'epochs=9')
    nb.page.locator('.clsnb-keep').click()
    nb.text('.clsnb-status', r'drawing 2\b')
    box = nb.page.locator('.clsnb-compare input')
    box.fill('0.003')
    box.press('Enter')
    nb.text('.clsnb-status', r'⚠')
    box.fill('resnet50_8xb32_in1k')
    box.press('Enter')
    nb.text('.clsnb-status', r'step: starts')
    nb.py("assert [o.label for o in ex.overlays] == ['kept 1: step', 'resnet50_8xb32_in1k']")
    nb.page.locator('.clsnb-remove').click()
    nb.text('.clsnb-status', r'drawing 5\b')
    nb.py("assert not ex.overlays")

def test_a_click_in_the_canvas_moves_the_cursor(nb):
    opened(nb, STEP, 'epochs=9')
    nb.py("assert ex.cursor == 0")
    stage = nb.page.locator('.clsnb-explorer [tabindex="0"][role=application]').first
    stage.wait_for()
    box = stage.bounding_box()
    nb.page.mouse.click(box['x']+box['width']*.6, box['y']+box['height']*.5)
    nb.text('.clsnb-status', r'drawing 2\b')
    nb.py("assert 300 < ex.cursor < 750 and not ex.errors")
    nb.text('.clsnb-readout', r'cursor')
