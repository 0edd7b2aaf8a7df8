// The document is found beside this page, whatever path the server is mounted at.
const base = new URL(".", document.baseURI).href.replace(/\/$/, "");
const fonts = { typography: { fontFamily: "sans-serif", headings: { fontFamily: "sans-serif" } } };

fetch("openapi.json")
  .then((answer) => answer.json())
  .then((spec) =>
    Redoc.init({ ...spec, servers: [{ url: base }] }, { theme: fonts }, document.getElementById("page")),
  );
