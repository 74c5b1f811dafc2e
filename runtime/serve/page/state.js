// What the parts of the page know together: fields of one object, as a name that is imported cannot be assigned.

export const state = {
  choices: undefined, // what the server offers
  wish: undefined, // what is chosen of it
  portrait: null, // a File that was chosen, until the page is closed
  stream: null, // camera and microphone
  link: null, // the connection of the moment
  wanted: false, // whether the visitor wants to be connected
};
