// A page never frees a module, and anywidget makes one for each widget: so the large module is loaded once for all
async function render(context) {
  const [name, text] = context.model.get("program");
  const loaded = (globalThis.clsnbPrograms ??= {});
  loaded[name] ??= import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  const module = await loaded[name];
  return module.default.render(context);
}

export default { render };
