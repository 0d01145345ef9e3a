"Packaging: everything it says comes from settings.ini"
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_namespace_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(here/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
extras = {k.removesuffix('_requirements'): v.split() for k, v in cfg.items() if k.endswith('_requirements')}
extras['dev'] += extras['test']
extras['all'] = sorted({o for k, v in extras.items() if k not in ('dev', 'test') for o in v})

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0',
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    packages=find_namespace_packages(include=['clsnb', 'clsnb.*']), include_package_data=False,
    package_data={'': ['*.py', 'py.typed', '*.json', '*.jpg', '*.png', '*.md', '*.txt', '*.css', '*.js']},
    python_requires='>=' + cfg['min_python'], install_requires=cfg['requirements'].split(), extras_require=extras,
    entry_points={'console_scripts': [o.strip() for o in cfg['console_scripts'].split('\n') if o.strip()],
                  'nbdev': ['clsnb = clsnb._modidx:d']},  # so that nbdev's docs link our names
    zip_safe=False,
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Developers', 'Intended Audience :: Science/Research',
                 'Topic :: Scientific/Engineering :: Image Recognition', 'Framework :: Jupyter',
                 *(f'Programming Language :: Python :: 3.{m}' for m in range(11, 14))])
