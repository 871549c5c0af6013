"""Words of the synthetic stories: names, creatures, things, places and feelings."""


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", " ").split(",") if part.strip())


GIRLS = _list("""Lily, Mia, Anna, Sara, Lucy, Emma, Zoe, Ella, Rosie, Molly, Nina, Amy, Daisy, Kate, Ruby, Ivy,
Maya, Lola, Jane, Sue, Clara, Hana, Leila, Amina, Mei, Alice, Nora, Eva, Grace, Tara""")
BOYS = _list("""Tim, Tom, Ben, Sam, Max, Leo, Jack, Finn, Oscar, Noah, Billy, Bob, Joe, Peter, Luke, Adam, Hugo,
Kofi, Omar, Ravi, Mark, Nick, Theo, Paul, Eric, Ali, Henry, Toby, Dan, Felix""")
PETS = _list("""Pip, Momo, Nibbles, Coco, Bubbles, Fluffy, Poppy, Tiny, Rusty, Hazel, Pepper, Biscuit, Misty, Bruno,
Pumpkin, Willow, Ollie, Dot, Patch, Maple, Ziggy, Luna, Teddy, Olive, Bella, Waffles, Clover, Benny, Tilly, Basil,
Ginger, Snowy, Berry, Milo, Kiki, Otto""")
# Creatures without an article: the first letter determines "a" or "an".
ANIMALS = _list("""cat, dog, rabbit, mouse, fox, bear, frog, duck, owl, turtle, squirrel, hedgehog, elephant, lion,
monkey, penguin, pig, goat, sheep, horse, cow, kitten, puppy, bird, bee, ant, snail, fish, deer, mole, otter,
beaver, hen, crab, giraffe, zebra, koala, panda, tiger, donkey, butterfly, ladybug, spider, whale, dolphin, parrot,
swan, wolf, crow, dinosaur""")
MAGIC = _list("""dragon, robot, fairy, unicorn, giant, wizard, ghost, elf, mermaid, monster, witch, star, cloud,
snowman, train, boat""")
PEOPLE_GIRL = _list("girl, princess, queen, girl, girl, farmer, baker, sailor, pirate, doctor, teacher, painter")
PEOPLE_BOY = _list("boy, prince, king, boy, boy, farmer, baker, sailor, pirate, fisherman, teacher, knight")
TRAITS = _list("""little, brave, shy, curious, kind, clever, funny, lazy, gentle, sleepy, happy, lonely, quiet,
cheerful, small, young, tiny, busy, friendly, silly, playful, hungry, careful, old, proud, grumpy, big, lucky""")
COLOURS = _list("red, blue, green, yellow, pink, purple, orange, white, golden, silver, brown, black")
TOYS = _list("""ball, kite, doll, drum, hat, scarf, toy car, book, button, balloon, key, ring, bell, cup, blanket,
umbrella, basket, box, spoon, shell, stone, feather, ribbon, whistle, teddy bear, coat, shoe, sock, bag, flute, top,
lamp, crown, coin, toy boat, toy train, pencil, bracelet, mitten, bucket""")
LOOKS = _list("shiny, soft, old, new, pretty, special, tiny, round, favorite, lovely, warm, beautiful")
FOODS = _list("""apple, cake, cookie, pie, pear, carrot, banana, sandwich, muffin, pancake, peach, orange,
loaf of bread, bowl of soup, piece of cheese, plum, cupcake, bun, strawberry, honey cake""")
PLACES = _list("""the forest, the park, the garden, the river, the hill, the beach, the meadow, the lake, the farm,
the village, the market, the pond, the big tree, the field, the mountain, the old bridge, the sea, the town,
the playground, the cave, the barn, the island, the castle, the library, the school, the valley""")
HOMES = _list("""a small house, a cozy house, a little village, a green forest, a big forest, a quiet town,
a house by the sea, a warm burrow, a little farmhouse, an old tree, a sunny valley, a tiny cottage, a busy city,
a castle, a cave on the hill, a house near the river""")
HIDING = _list("""under the bed, behind a tree, in the tall grass, under a big leaf, behind the door,
in the kitchen, under a bush, next to the river, behind a rock, in the garden, under the table, near the old well,
in a pile of leaves, inside a hollow log, by the gate""")
FEARS = _list("""the dark, thunder, loud noises, deep water, high places, big dogs, the wind, being alone,
the old bridge, strangers, shadows, the long slide""")
SKILLS = _list("""swim, sing, dance, fly a kite, ride a bike, read, paint, jump, whistle, climb, skate, juggle,
write, play the drum, cook, count to one hundred, tie a bow, catch a ball""")
SEEDS = _list("sunflower, pumpkin, apple tree, rose, bean, carrot, tomato, tulip, strawberry, cherry tree")
HURTS = _list("""a hurt leg, a broken wing, a sore foot, a bad cold, a thorn in the foot, a bump on the head,
a cut on the arm""")
BUILDS = _list("""tree house, boat, sandcastle, bridge, bird house, snow house, tower, raft, fort, bench, swing,
little cart""")
WEATHER = _list("sunny, warm, cold, windy, rainy, bright, cloudy, quiet, lovely, snowy, hot, fine")
SOUNDS = (
    "tap, tap, tap", "knock, knock, knock", "hoo, hoo", "scratch, scratch", "boom, boom", "drip, drip", "ding, ding",
    "squeak, squeak", "swish, swish",
)  # fmt: skip
ELDERS = _list("mother, father, grandmother, grandfather, mom, dad, grandma, grandpa, aunt, uncle")
