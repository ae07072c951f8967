/* Data come in script files, since browsers block fetch on file://. Each calls deliver(name, packed).

   loaded(name)   a promise of what assets/<name>.js delivers; a file is loaded once, and on demand
   library(name)  a promise that the library whose code assets/<name>.js delivers has run
*/
"use strict";

(() => {
  const promised = new Map();
  const libraries = new Map();
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

  function request(name, resolve, reject) {
    waiting.set(name, resolve);
    run(`assets/${name}.js`, () => reject(new Error(`assets/${name}.js delivers nothing`)), reject);
  }

  function loaded(name) {
    if (!promised.has(name)) promised.set(name, new Promise((resolve, reject) => request(name, resolve, reject)));
    return promised.get(name);
  }

  async function executed(name) {
    const url = URL.createObjectURL(new Blob([await loaded(name)], { type: "text/javascript" }));
    await new Promise((resolve, reject) => run(url, resolve, reject));
    URL.revokeObjectURL(url);
  }

  function library(name) {
    if (!libraries.has(name)) libraries.set(name, executed(name));
    return libraries.get(name);
  }

  globalThis.deliver = (name, packed) => waiting.get(name)?.(unpacked(packed));
  globalThis.loaded = loaded;
  globalThis.library = library;
})();
