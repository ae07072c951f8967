/* Data come in script files, since browsers block fetch on file://. Each calls deliver(name, packed).

   loaded(name)      a promise of what assets/<name>.js delivers; a file is loaded once, and on demand
   loadedScript(url) a promise that a script file without data, such as a library, has run
*/
"use strict";

(() => {
  const scripts = new Map();
  const promised = new Map();
  const waiting = new Map();

  async function unpacked(packed) {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  function run(url, resolve, reject) {
    const element = document.createElement("script");
    element.addEventListener("load", resolve);
    element.addEventListener("error", () => reject(new Error(`${url} is missing: copy the report's whole folder`)));
    element.src = url;
    document.head.append(element);
  }

  function loadedScript(url) {
    if (!scripts.has(url)) scripts.set(url, new Promise((resolve, reject) => run(url, resolve, reject)));
    return scripts.get(url);
  }

  function request(name, resolve, reject) {
    waiting.set(name, resolve);
    loadedScript(`assets/${name}.js`).then(() => reject(new Error(`assets/${name}.js delivers nothing`)), reject);
  }

  function loaded(name) {
    if (!promised.has(name)) promised.set(name, new Promise((resolve, reject) => request(name, resolve, reject)));
    return promised.get(name);
  }

  globalThis.deliver = (name, packed) => waiting.get(name)?.(unpacked(packed));
  globalThis.loaded = loaded;
  globalThis.loadedScript = loadedScript;
})();
